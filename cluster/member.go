package cluster

// Twin is a node ID with which two machines gossip.
type Twin struct {
	NodeID string
	// Addr is the machine that is a member, Other the one that isn't, each IP:port.
	Addr, Other string
}

// Member is a node as gossip sees it: a hint, never the truth.
type Member struct {
	NodeID string
	Addr   string
	// Suspect is set when probes of the member fail but it isn't given up yet. A
	// member that was given up is not listed at all.
	Suspect bool
	// Left is set for half a minute after the member said that it goes, as a daemon does that
	// is stopped in order.
	Left bool
}
