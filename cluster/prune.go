package cluster

import "time"

// PrunedNodes is what the API answers to the order to remove nodes that are gone.
type PrunedNodes struct {
	// Nodes are removed, or would be; Left is how many more would be by the next order.
	Nodes []PrunedNode
	Left  int `json:",omitempty"`
	// Kept have been down for as long, and stay.
	Kept []PrunedNode
}

// PrunedNode is one of them.
type PrunedNode struct {
	ID        string
	Hostname  string
	Addr      string
	DownSince time.Time
	// Message is why the node was down, and Kept why it stays.
	Message string
	Kept    string `json:",omitempty"`
}
