// Package cluster holds the words of skep: the objects that managers replicate,
// the states of tasks and nodes, the errors that cross packages, the constraint
// language and the messages between agents and managers.
//
// It is run by nobody: it starts no goroutine, reads no clock, touches no network
// and, but for ReplaceFile and SyncDir, no disk. It imports nothing else of skep, so
// every package may import it.
//
// What users write (specs) are Docker's own types, embedded unchanged; what the
// system writes (status and bookkeeping) is ours. Conversion to the Docker
// Engine API runs one way only, outwards, in cluster/api.
//
// An object that has been put into the store is shared by all its readers and
// must never be modified again: copy it, change the copy, put the copy.
package cluster
