// Package node is one machine's life: its identity and files, its agent always,
// its manager while its role says so, its part in gossip, the sockets of its
// API, and how it comes into a cluster and out of it.
//
// The daemon runs one Node; a test runs many in one process.
//
// Goroutines, ended with Run:
//   - serve: one per API socket.
//   - member, while the node is part of a cluster: agent.Run; gossip; renew,
//     which replaces the certificate before it ends or when the role changes;
//     manage, which runs a manager while the certificate's role is manager.
//   - join, at start with --join: tries until it is let in.
//
// Files, in a directory of mode 0700 that one daemon holds at a time: the key
// file (ca.KeyFile), and, sealed with its data key, what the node knows of the
// cluster (record), the agent's tasks, and raft's log and snapshots.
//
// Guarantees: a node that has joined goes on where it was after any stop; what
// an order such as init or join couldn't finish leaves nothing behind.
package node
