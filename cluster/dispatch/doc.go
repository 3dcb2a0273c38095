// Package dispatch is a manager's side of its agents: sessions, assignments, reports and
// the relay of logs.
//
// Every manager runs one Dispatcher (Run). It serves its agents from the manager's own
// replica of the database, so the loss of the leader disturbs no agent of another manager.
// What agents are told of networks is made by package networks. What agents report it relays to the leader, in its own name. On the leader, Lead runs
// beside Run: it collects the relays of all managers, writes what changes an object, and has
// package liveness decide which nodes are ready or down.
//
// Goroutines, by name:
//
//   - fanOut (one, in Run) reads the one subscription to the store and marks each change in
//     the sessions that it concerns. It also watches gossip.
//   - relay (one, in Run) sends the leader what is in the outbox: at once when something was
//     added, else at intervals, as a heartbeat with the list of sessions. At most one relay is
//     under way. What the leader hasn't acknowledged is sent again, to whoever leads then.
//   - reader (one per session, ServeSession itself) reads the agent's frames. It writes to
//     the outbox and to the buffers of log streams, and never waits for consensus.
//   - writer (one per session) is the only one that writes to the connection. It alone owns
//     the assignment set and the Reader of networks: what the agent was sent.
//   - shareOrigins (one, in Run, where there are traces) tells other managers, with a goroutine for each time,
//     which requests services' tasks come from.
//   - collector (one, in Lead) owns what the leader knows of managers, sessions and gossip.
//     It has at most one batch with the committer.
//   - committer (at most one, started by collector for each batch) is in store.Update.
//
// Guarantees:
//
//   - The assignments that a session sends are, after each message, exactly the node's tasks
//     at a store index, and the index never goes back. No change is skipped between two
//     messages. A change of nothing but what the agent itself reported isn't sent back to it.
//   - What a session tells of a network is numbered in the same way, comes before the first task
//     that has an address in it, and ends after the last. A change of a network costs a session
//     that hears of it a wake-up, and bytes that are made once for all sessions.
//   - An agent's reports are bounded in size and printable (report.go), concern its own
//     node's tasks only, and take no other node's share of a relay. At most as many wait as
//     its node has tasks, twice over, and a few thousand.
//   - What an agent sends takes memory in proportion to the bytes that came, one frame at
//     most; a node has few connections without a Hello, and for seconds.
//   - A session takes bounded memory: changes that the agent is too slow for are merged, and
//     beyond a limit replaced by one complete set.
//   - A node has at most one session on a manager; a new one ends the old one.
//   - A manager that has just started serves agents when its replica has what was committed then (Config.Current).
//   - The last reported status of each task reaches the leader's database, however often the
//     leader changes, as long as this manager runs (when it doesn't, the agent repeats
//     everything in its next session). Earlier ones may be skipped. A relay is acknowledged
//     after its content is committed. After an agent reconnects elsewhere, its repeated
//     reports there win over older ones still queued here.
//   - Nothing periodic is written to the log, only changes.
package dispatch
