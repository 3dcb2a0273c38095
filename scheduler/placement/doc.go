// Package placement decides where tasks run. Its Ledger knows every node, what
// is reserved on it and how many tasks it has, in all and of each service; a
// chain of filters says which nodes a revision may run on, and preferences and an
// order say which of those comes first. Which nodes are eligible, whatever is on them,
// is found out once for all services that ask the same of a node.
//
// The scheduler's goroutine owns the Ledger; nothing in it is locked, reads a
// clock or starts a goroutine. It is kept current from the changes of the store
// and made anew from a listing; both give the same, but for the memory of
// failures that tasks no longer kept had.
//
// Guarantees: a choice depends only on what the Ledger holds, with ties broken
// by node ID; a node's reservations never exceed what it has, and a port or a named
// resource of it is one task's at a time, unless the node changed or tasks were put
// there past the Ledger.
package placement
