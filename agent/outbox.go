package agent

import (
	"slices"
	"sync"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

const (
	// maxReports is how many reports go into one frame, and maxReportBytes about how many
	// bytes: far less than cluster.MaxAgentFrame.
	maxReports     = 2000
	maxReportBytes = 128 << 10
	// reportBytes is more than a report has without its texts.
	reportBytes = 256
)

// outbox is what a session has yet to send. While a write is under way, later
// news of a task replace earlier ones, so it never holds more than one report per
// task.
type outbox struct {
	// ready is signalled when there is something to take.
	ready chan struct{}
	// logs are chunks of logs; who sends one waits until the writer takes it.
	logs chan *cluster.LogChunk

	mu      sync.Mutex // guards the fields below
	order   []string
	reports map[string]cluster.Report
	// description is nil when it didn't change.
	description *swarm.NodeDescription
	// keys and uses are as they were last, beside the description.
	keys       cluster.WireKeys
	uses       []cluster.AddressUse
	engineAway bool
	// fenced is set while the node has tasks that need a lease; asked are the times at
	// which messages asked for one, until it was granted or would be over.
	fenced bool
	asked  []time.Time
}

// newOutbox returns an empty outbox.
func newOutbox() *outbox {
	return &outbox{
		ready:   make(chan struct{}, 1),
		logs:    make(chan *cluster.LogChunk),
		reports: make(map[string]cluster.Report),
	}
}

// report puts in the status of a task.
func (m *outbox) report(report cluster.Report) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, waits := m.reports[report.TaskID]; !waits {
		m.order = append(m.order, report.TaskID)
	}
	m.reports[report.TaskID] = report
	m.signalLocked()
}

// describe puts in a new description of the node, its keys and what addresses it uses.
func (m *outbox) describe(description swarm.NodeDescription, keys cluster.WireKeys, uses []cluster.AddressUse) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.description, m.keys, m.uses = &description, keys, uses
	m.signalLocked()
}

// setEngine notes for all messages from now on whether the engine is away.
func (m *outbox) setEngine(away bool) {
	m.set(&m.engineAway, away)
}

// setFenced notes for all messages from now on whether they ask for a lease.
func (m *outbox) setFenced(fenced bool) {
	m.set(&m.fenced, fenced)
}

// set signals when what messages say has become another.
func (m *outbox) set(said *bool, now bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if *said != now {
		*said = now
		m.signalLocked()
	}
}

// ask gives the stamp by which a message that is sent now asks for a lease; 0 when
// none is needed.
func (m *outbox) ask(now time.Time) int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.fenced {
		m.asked = nil
		return 0
	}
	m.asked = slices.DeleteFunc(m.asked, func(at time.Time) bool { return now.Sub(at) > cluster.FenceLease })
	m.asked = append(m.asked, now)
	return now.UnixNano()
}

// granted tells when the lease of this stamp was asked for. A stamp that isn't
// known, or whose lease is over, gives nothing.
func (m *outbox) granted(stamp int64) (at time.Time, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, at := range m.asked {
		if at.UnixNano() == stamp {
			m.asked = slices.Delete(m.asked, 0, i+1)
			return at, true
		}
	}
	return time.Time{}, false
}

func (m *outbox) signalLocked() {
	cluster.Notify(m.ready)
}

// take returns what is to be sent next, oldest news first.
func (m *outbox) take() cluster.FromAgent {
	m.mu.Lock()
	defer m.mu.Unlock()
	message := cluster.FromAgent{Describe: m.description, EngineAway: m.engineAway}
	if m.description != nil {
		message.WireKeys, message.Uses = m.keys, m.uses
	}
	count, size := 0, 0
	for count < min(len(m.order), maxReports) && size < maxReportBytes {
		taskID := m.order[count]
		report := m.reports[taskID]
		message.Reports = append(message.Reports, report)
		delete(m.reports, taskID)
		size += reportBytes + len(report.Status.Message) + len(report.Status.Err) + len(report.Status.Ports)
		count++
	}
	m.order, m.description = m.order[count:], nil
	if len(m.order) == 0 {
		m.order = nil
	} else {
		m.signalLocked()
	}
	return message
}
