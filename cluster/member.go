package cluster

// Member is a node as gossip sees it: a hint, never the truth.
type Member struct {
	NodeID string
	Addr   string
	// Suspect is set when probes of the member fail but it isn't given up yet. A
	// member that was given up, or left, is not listed at all.
	Suspect bool
}
