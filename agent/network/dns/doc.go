// Package dns answers the names of the cluster's networks to the containers of a node: a
// service's name with its virtual IP or its tasks' addresses, tasks and slots by name, and
// addresses by PTR. What isn't the cluster's is asked of other resolvers.
//
// The agent writes Names to a file (WriteFile), and a process answers from it (Process) at the
// gateways of the node's networks; each container has one of them as its resolver, so the
// process sees who asks. The process outlives the daemon, which has a Keeper start it.
//
// Goroutines of a Process: the one that owns its state (run), one that listens at its door, one for each
// source of changes, one for each socket, one for each connection, and one for each question
// that is with another resolver. Of a Keeper: the one that runs it, and one that waits for its process.
//
// Guarantees: a container learns names of the networks it is on, and nothing of others. No
// answer is made of an account that isn't complete, nor of half a file, of another version's or
// of one from before the machine started. A process that takes over from another one loses no
// question. Any packet gets an answer that fits it, or none; none ends the process.
package dns
