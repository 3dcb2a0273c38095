// Package clustertest runs a whole cluster in one process, for tests: real
// nodes with their real managers, raft, store, dispatch and agents, on a network
// in memory, with simulated containers and simulated gossip. Inside a
// testing/synctest bubble its clock is fake, and minutes take seconds.
//
// A test starts a cluster, does harm to it (Partition, Crash, Restart), and ends
// with what must hold: Eventually for what is to come about, Same for equal state
// on all managers. SKEP_TEST_LOG=1 shows what the machines log, SKEP_TEST_STACKS=1
// what all goroutines wait for when Eventually gives up.
package clustertest
