// Package dns answers the names of the cluster's networks to the containers of a node: a
// service's name with its virtual IP or its tasks' addresses, tasks and slots by name, and
// addresses by PTR. What isn't the cluster's is asked of other resolvers.
//
// The agent gives Names and runs a Server on the gateways of the node's networks; each
// container has that gateway as its resolver, so the server sees who asks.
//
// Goroutines, all of one Server.Run and ended with it: one for each listener, and one for
// each question, of which at most asked are asked of other resolvers at once.
//
// Guarantees: a container learns names of the networks it is on, and nothing of others. No
// answer is made of an account that isn't complete. Any packet gets an answer that fits it,
// or none; none ends the server.
package dns
