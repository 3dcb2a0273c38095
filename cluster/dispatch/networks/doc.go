// Package networks is what a manager tells agents of the cluster's networks: who is where in
// them (cluster.NetworkUpdate).
//
// What is told follows from a View alone: account.go makes the account of a network and the
// difference that changes of some objects make to it. A Hub notes for each network that some
// agent hears of which objects changed at which index (journal.go), so that a session, whose
// Reader keeps the index that its agent has got to for each network, is told the difference.
// Agents that have got to the same index are told the same, which is encoded once.
//
// One goroutine calls Hub.Record, with each change of the store. A Reader belongs to the writer
// of its session.
//
// Guarantees: what a Reader gives brings the agent exactly to the account as the view has it. No
// change is lost: a Reader that Record names, or that is told that it is behind, and asks with a
// later view, is told. A Hub's memory is bounded by the number of networks that agents hear of;
// who is behind by more than a journal has is told the whole account.
package networks
