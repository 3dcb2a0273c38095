// Package peers is the connections between managers: raft's transport, and the control port.
package peers
