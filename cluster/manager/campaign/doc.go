// Package campaign decides when a manager stands for election: sooner than raft by itself
// would, and only when most managers miss the leader.
//
// cluster/manager makes one Campaign and runs it for as long as it serves. There is one
// rule, decide, a pure function of the managers' accounts. What leads to a look are a
// connection of the leader's that ended and its silence.
//
// Goroutines:
//   - Run: the only one that owns what a Campaign knows. It looks, asks and stands.
//   - probe: one at most, for a leader's connection that ended: looks whether its port
//     refuses, for a heartbeat timeout at most.
//   - one for each manager that is asked, for a third of a heartbeat timeout at most.
//
// Guarantees: a manager that alone is cut off from the leader, or refused by it, deposes
// nobody. Nothing here is about safety: who may be elected, and that a term has one leader,
// is raft's, so a wrong decision costs a moment without a leader. While the leader is heard
// nothing is sent, and Run doesn't wake.
package campaign
