package cluster

import "time"

// Timing is how long the members of a cluster wait for each other before they act:
// quick where nodes are near each other, patient where they are far apart. It is one
// setting, since a raft that is quicker than gossip, or the other way round, gains
// nothing. All nodes of a cluster should have the same.
type Timing struct {
	// HeartbeatTimeout is raft's: the silence after which followers look for a new
	// leader. Heartbeats are sent three to ten times as often; votes, stalls of the disk
	// and whatever else hangs on elections are bounded by multiples of it.
	HeartbeatTimeout time.Duration
	// ProbeInterval is how often a node looks after one other by gossip, ProbeTimeout how
	// long that one may take to answer, and GossipInterval how often news are passed on; all
	// of it less often while all is well.
	ProbeInterval, ProbeTimeout, GossipInterval time.Duration
	// SuspicionMult is how many probe intervals, times the logarithm of the number of
	// nodes, a suspected node has to object.
	SuspicionMult int
}

// StartupGrace is how long after a cold start of the cluster machines count as coming
// back with it: then they get back what others took over from them meanwhile.
const StartupGrace = 5 * time.Minute

// The names of timings.
const (
	// LatencyLocal is for nodes on one machine or in one rack.
	LatencyLocal = "local"
	// LatencyLAN is the default: nodes within a few milliseconds of each other.
	LatencyLAN = "lan"
	// LatencyWAN is for nodes up to 300 ms apart, over links that lose packets.
	LatencyWAN = "wan"
)

var timings = map[string]Timing{
	LatencyLocal: {HeartbeatTimeout: 150 * time.Millisecond, ProbeInterval: 100 * time.Millisecond, ProbeTimeout: 50 * time.Millisecond, GossipInterval: 25 * time.Millisecond, SuspicionMult: 3},
	LatencyLAN:   {HeartbeatTimeout: 300 * time.Millisecond, ProbeInterval: 180 * time.Millisecond, ProbeTimeout: 90 * time.Millisecond, GossipInterval: 50 * time.Millisecond, SuspicionMult: 3},
	LatencyWAN:   {HeartbeatTimeout: 1500 * time.Millisecond, ProbeInterval: time.Second, ProbeTimeout: 700 * time.Millisecond, GossipInterval: 200 * time.Millisecond, SuspicionMult: 4},
}

// TimingFor is the timing of that name; of no name it is LatencyLAN's. An unknown name
// is ErrInvalid.
func TimingFor(latency string) (Timing, error) {
	if latency == "" {
		latency = LatencyLAN
	}
	timing, known := timings[latency]
	if !known {
		return Timing{}, Errorf(ErrInvalid, "latency %q: want %s, %s or %s", latency, LatencyLocal, LatencyLAN, LatencyWAN)
	}
	return timing, nil
}
