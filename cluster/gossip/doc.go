// Package gossip says which nodes are here and which seem gone, by SWIM
// (hashicorp/memberlist) between all nodes of the cluster.
//
// Who runs it: every node, from the moment it has the cluster's gossip keys until
// it leaves. Managers read it as one of two signals for a dead node.
//
// # What it is worth
//
// It is a hint, never the truth. All nodes share the keys, and memberlist has no
// protection against replay, so any node can make up any other. So: who a node
// is, its role and its address come from the store; a member that the store
// doesn't know is ignored; nothing is done to a node on gossip's word alone, but that others lead
// clients elsewhere while it is missed, where a service has tasks elsewhere.
//
// # Guarantees
//
//   - Packets and streams are encrypted (AES-256-GCM) and carry the cluster's ID as
//     authenticated label; what doesn't decrypt, or is of another cluster, changes
//     nothing.
//   - No packet and no stream ends the process, or takes memory out of proportion,
//     also not from a node that has the keys: package guard drops what no member sends.
//     What a later level of skep adds (fields that are scalars, types of messages
//     from 14 on) it leaves out, and the rest counts. What a newer memberlist says in
//     another way needs a newer guard, on all nodes first: testdata/level-N has what
//     members of each level send, which every later version takes.
//   - A node that stops answering is suspect after about half a second and not
//     listed any more after about a second, on all others; one that leaves in order
//     is listed as left at once, for half a minute. Who loses several at once first doubts itself, and may take
//     some seconds for the last of them.
//   - Changed never blocks anybody and never misses the last change: receive, then
//     read Members. Several changes may be one signal.
//   - No call waits without a deadline.
//
// # Goroutines
//
// Besides memberlist's own there are two, which end with Close. The guard's takes
// packets from the network, checks them and hands them on; streams are read and checked
// by the goroutines of memberlist that wait for them. The other one is watch. It looks
// for changes of suspicion, of which memberlist sends no event, and goes back to the
// seeds that Join was given while they are missing: memberlist forgets the dead after
// half a minute, so the two sides of a long partition would never find each other again.
package gossip
