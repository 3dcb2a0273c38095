// Package store is the replicated database: tables of typed objects, transactions,
// one proposer with group commit, subscriptions, the raft FSM with its snapshots, and
// the log, stable store and snapshots on an encrypted and authenticated disk, which raft
// runs on.
//
// Each manager has one Store. Its goroutines are raft's (which calls Apply,
// Snapshot and Restore of the FSM) and, while the manager leads, the proposer
// (Lead), which is the only one that proposes entries.
//
// Each kind of object has a file that describes it and has its lookups (node.go,
// task.go, …); kind.go lists them. Everything else is for any kind.
//
// Guarantees: a View is immutable and O(1) to get; an Update is serialisable
// and, once it has returned nil, committed and visible in View on this manager;
// names are unique without regard to case; the same log index means the same
// objects, byte for byte, on all managers; subscribers see every commit in
// order, or are told to list again; whatever can't be understood or written
// ends the process (Config.Fatal) instead of letting managers drift apart.
//
// DESIGN.md beside this file has the formats, and what was rejected.
package store
