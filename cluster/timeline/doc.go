// Package timeline has what the managers' raft and their decisions did lately: who stood for election and
// why, who voted, whom the leader lost, how it was handed over, what became of nodes, and how many writes
// were accepted. It is for people who want to see an election, and for students.
//
// A manager has one Ring, to which it adds a Record where something happens; it is asked for them by any
// manager, which merges all answers into a Timeline (Merge). Story says a Timeline in sentences.
//
// Guarantees: a Ring is bounded, in memory only, and may be used by any goroutine; adding costs a mutex,
// and a nil Ring takes nothing. There is no clock here: callers say when. Merge and Story are pure.
//
// What it isn't: a proof. Records of a manager whose process ended are gone with it, and clocks are
// compared by the exchange of one question, so what happened within that time on two managers may stand
// in either order.
package timeline
