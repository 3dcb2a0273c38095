// Package dispatch is a manager's side of its agents: sessions, assignment
// streams, reports, liveness and the relay of logs.
//
// Every manager runs one Dispatcher. It serves agents from the manager's own
// replica of the database, so the loss of the leader disturbs no agent of
// another manager, and it passes on what agents say to the leader, in its own
// name. On the leader, Lead takes all of that in, writes what changes an object
// and decides which nodes are alive.
//
// Goroutines, by name:
//
//   - hub (one, in Run) reads the one subscription to the store, finds out which
//     sessions a change concerns, and marks it there. It also takes note of gossip.
//   - relay (one, in Run) sends the leader what is in the outbox: at once when
//     there is news, else every 200 ms as a sign of life with the list of sessions.
//     At most one relay is under way. What the leader hasn't acknowledged is sent
//     again, to whoever leads then.
//   - reader (one per session, ServeSession itself) reads the agent's frames. It
//     writes to the outbox and to the buffers of log streams, and never waits for
//     consensus.
//   - writer (one per session) is the only one that writes to the connection. It
//     alone owns the assignment set of what the agent was told.
//   - collector (one, in Lead) owns what the leader knows of managers, sessions and
//     gossip. It has at most one batch with the committer.
//   - committer (at most one, started by collector for each batch) is in
//     store.Update.
//
// Guarantees:
//
//   - The assignments a session sends are, message by message, exactly the node's
//     tasks at a store index, and the index never goes back. Between two messages
//     lies no change that the second one lacks. A change of nothing but what the
//     agent itself reported isn't sent back to it.
//   - What an agent says is bounded and can be shown, wherever it goes (report.go). It
//     says nothing of other nodes' tasks, takes no other node's turn in a relay, and has
//     so many reports waiting as it has tasks, and a few more.
//   - What an agent sends takes memory in proportion to the bytes that came, a frame's
//     worth at most; a node has few connections that haven't said Hello, for seconds.
//   - A session costs bounded memory: changes that the agent is too slow for are
//     joined, and beyond a limit replaced by one complete set.
//   - A node has at most one session on a manager; a new one ends the old one.
//   - The last status of a task that an agent reported reaches the leader's
//     database, however often the leader changes, as long as this manager runs
//     (the agent repeats everything in its next session when it doesn't). Earlier
//     ones may be skipped. A relay is acknowledged only after its content is
//     committed. Old news of a node that a manager still holds yields to what the
//     node's agent repeats to the manager that it went on to.
//   - Nothing periodic is written to the log, only changes.
//
// Which nodes are ready or down, and why, is package liveness's decision.
package dispatch
