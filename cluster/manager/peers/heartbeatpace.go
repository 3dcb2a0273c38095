package peers

import (
	"sync"
	"time"
)

// Raft's heartbeats are ten in a HeartbeatTimeout or a little less, to each follower at moments of its own:
// most of what a cluster costs that has nothing to do. Here, while each is answered soon, the
// leader sends them all at once, and about three in a HeartbeatTimeout. As soon as an answer is late they
// are raft's again for a while, so that one that is lost then costs no more than it ever did.

// heartbeatPace is whether a leader's heartbeats are answered soon.
type heartbeatPace struct {
	// late is how long an answer may take, and wary for how long a later one counts.
	late, wary time.Duration

	mu      sync.Mutex    // guards the fields below
	calm    *time.Timer   // ends the time after the last late answer; nil when all is well
	changed chan struct{} // closed when calm becomes nil, or the other way round
}

func newHeartbeatPace(beat time.Duration) *heartbeatPace {
	return &heartbeatPace{late: beat / 3, wary: 10 * beat, changed: make(chan struct{})}
}

// exchange runs the exchange of a heartbeat, and takes note when it takes long or fails.
func (p *heartbeatPace) exchange(send func() error) error {
	late := time.AfterFunc(p.late, p.noteDelay)
	defer late.Stop()
	err := send()
	if err != nil {
		p.noteDelay()
	}
	return err
}

// noteDelay takes note of an answer that is late.
func (p *heartbeatPace) noteDelay() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.calm != nil {
		p.calm.Reset(p.wary)
		return
	}
	p.calm = time.AfterFunc(p.wary, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.calm = nil
		p.changeLocked()
	})
	p.changeLocked()
}

func (p *heartbeatPace) changeLocked() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// steady tells whether all answers came soon lately, until changed is closed.
func (p *heartbeatPace) steady() (well bool, changed <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.calm == nil, p.changed
}
