// Package manager is a manager's life: its part in raft and in the store, the
// control port, what a leader does while it leads, and the certificates it
// issues then.
//
// cluster/node opens a Manager when the node's certificate says so and runs it
// for as long as that lasts.
//
// Goroutines, all of one Run and ended with it:
//   - control: has the port (package peers) accept, and sorts connections by ALPN
//     into raft, agent sessions and HTTP; one goroutine per connection from there on.
//   - leadership: the only one that starts and ends lead; it re-reads raft's
//     state whenever raft says that something changed.
//   - lead, while this manager leads: the store's proposer, and within it the
//     scheduler's loop, dispatch's collector, followRoles, which makes raft's
//     configuration follow the roles in the store, rotate, which renews the gossip
//     keys, and finishRoot, which ends a change of the root CA.
//   - watch: publishes who leads to everybody who waits for it.
//   - campaign.Run: stands for election when most voters miss the leader.
//   - transport.Run: keeps connections to the other managers ready, and tells followers
//     of commits.
//   - compact: takes a snapshot when the log has grown enough.
//   - dispatch.Run: this manager's agents.
//
// Guarantees: nothing that only a leader does outlives its leadership; a
// caller's role is checked on every request, against its certificate and the
// store; when lead fails the leadership is handed over rather than kept idle.
package manager
