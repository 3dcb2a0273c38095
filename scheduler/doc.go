// Package scheduler decides what should exist: which tasks, where, wanted in
// which state, and how far each update has come.
//
// Plan is a pure function of the database, the ledger of nodes and their tasks, what
// changed and the time: it returns intents and when to look again. Run is the loop around it,
// the only goroutine of the package; the leader runs it while it leads.
//
// Guarantees: nothing that matters is kept in memory, so a new leader goes on
// where the last one stopped; an intent is applied to the objects as they are
// then, and dropped when it no longer fits; planning again what has been applied
// yields nothing; a change of one service costs work for that service only.
package scheduler
