// Package peers is the connections between managers: raft's transport, and the control port.
//
// cluster/manager makes a Port and a Transport when it opens, has raft use the Transport,
// and runs both. It decides itself what a connection is for (PortConfig.Route), who is a node,
// and whether a manager that speaks from a new address is believed (Config.Believe).
//
// Goroutines:
//   - Port.Serve: accepts; one for each connection until Route returns; one that lets
//     strangers' handshakes begin, one after the other.
//   - Transport.Run: keeps connections to the other managers ready; tells followers of
//     commits while this manager leads.
//   - from Started to Close: passes raft one request after the other.
//   - Transport.Serve, on its caller's: one for each connection that another manager opened,
//     and one of raft's transport beside it.
//   - one for each connection for calls, at either end; one while a manager that speaks from elsewhere is looked for.
//
// Guarantees: raft hears a request only by a connection whose certificate is of the manager
// that it names, which may say that; a connection of a known node doesn't wait for strangers;
// after Close nothing is open, and Break closes all without a wait.
package peers
