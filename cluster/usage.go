package cluster

import "time"

// Usage is what a container used up to a moment, since it started, and what it had then.
type Usage struct {
	At time.Time
	// CPU is time of one CPU.
	CPU time.Duration
	// Memory is without what the kernel could free at once; MemoryLimit is the machine's memory when the
	// container has none.
	Memory, MemoryLimit uint64
	// Received and Sent are bytes of networks, Read and Written of disks.
	Received, Sent, Read, Written uint64
	Processes                     uint64
}

// TaskUsage is what a task that runs uses.
type TaskUsage struct {
	TaskID, Name      string
	ServiceID, NodeID string
	Service, Hostname string
	// NodeMemory is how much its node has: what tasks may take together, however much each may. Zero when that isn't known.
	NodeMemory uint64 `json:",omitempty"`
	// Usage has the oldest first: the newest is of now, the others are of every UsageEvery before.
	Usage []Usage `json:",omitempty"`
	// Err is why there is none.
	Err string `json:",omitempty"`
}

const (
	// UsageEvery is how often agents look at what their tasks use when nobody asks, and UsageKept how
	// many looks they keep, in memory: a quarter of an hour.
	UsageEvery = 15 * time.Second
	UsageKept  = 60
)

// UsagePath is where agents are asked what their tasks use, by ProtocolEngine. The answer is an array of
// TaskUsage that has only what agents know. ?service= has the ID of one service, and ?history=1 asks for all that is kept.
const UsagePath = "/skep/v1/usage"
