// Package telemetry has the instruments by which a node measures what it does: counters, and
// histograms of how long things take.
//
// Each node makes one Metrics with New; the packages that measure are given their part of it
// in their Config. The zero value of each part measures nothing and costs a comparison, so
// that whoever isn't interested gives nothing. What a Metrics has is read by Gather, as
// Prometheus' client library does; the state of the cluster, which is a reading of the
// database and no event, is added by who serves it (see cluster/api). What raft and memberlist
// measure by themselves is in it where one process is one node (see OfProcess).
//
// Names are an interface: clustertest's TestMetrics_Names lists them. Some words are those of who measures: raft's state
// "shutdown" is a manager that is down; a task that is given up with its node is "orphaned", not lost; fetching an image is
// part of the engine's call "create".
//
// What all of it costs a write, and a plan, is at most 2 %: see the benchmarks Update_Measured in store and Plan_Measured in
// scheduler, which `lab bench` runs.
//
// Guarantees: every method but OnScrape may be called by any goroutine and never blocks. There is no
// clock here: callers say how long something took. Series never expire, and their labels
// are from small sets that the code knows, never IDs, texts of errors or what users wrote,
// but for the names of services (see Services).
package telemetry

import (
	"cmp"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	dto "github.com/prometheus/client_model/go"
)

// NamedServices is how many services have series of their own: names come and go without end, and series
// stay. All others have those of OtherServices.
const (
	NamedServices = 2000
	OtherServices = "_other"
)

// Timer is a histogram of durations.
type Timer struct{ of prometheus.Observer }

// Any tells whether anything is measured.
func (t Timer) Any() bool { return t.of != nil }

// Took counts one duration. One that a clock that was set back made negative counts as none.
func (t Timer) Took(d time.Duration) {
	if t.of != nil {
		t.of.Observe(max(d, 0).Seconds())
	}
}

// Measure counts how long f took by a clock, which isn't asked where nothing is measured.
func (t Timer) Measure(now func() time.Time, f func() error) error {
	if t.of == nil {
		return f()
	}
	began := now()
	err := f()
	t.Took(now().Sub(began))
	return err
}

// Timers are Timers by the values of labels.
type Timers struct{ of *prometheus.HistogramVec }

// Any tells whether anything is measured.
func (t Timers) Any() bool { return t.of != nil }

// Of is the one with these values, in the order of the metric's labels.
func (t Timers) Of(values ...string) Timer {
	if t.of == nil {
		return Timer{}
	}
	return Timer{t.of.WithLabelValues(values...)}
}

// Sizes is a histogram of numbers of things.
type Sizes struct{ of prometheus.Observer }

// Was counts one number.
func (s Sizes) Was(n int) {
	if s.of != nil {
		s.of.Observe(float64(n))
	}
}

// Level is a number that goes up and down.
type Level struct{ of prometheus.Gauge }

// Add changes it by n.
func (l Level) Add(n int) {
	if l.of != nil {
		l.of.Add(float64(n))
	}
}

// Is sets it to n.
func (l Level) Is(n int) {
	if l.of != nil {
		l.of.Set(float64(n))
	}
}

// Levels are Levels by the values of labels.
type Levels struct{ of *prometheus.GaugeVec }

// Of is the one with these values, in the order of the metric's labels.
func (l Levels) Of(values ...string) Level {
	if l.of == nil {
		return Level{}
	}
	return Level{l.of.WithLabelValues(values...)}
}

// Counters are counts by the values of labels.
type Counters struct{ of *prometheus.CounterVec }

// Add counts n more of those with these values, in the order of the metric's labels.
func (c Counters) Add(n int, values ...string) {
	if c.of != nil {
		c.of.WithLabelValues(values...).Add(float64(n))
	}
}

// Store is what a store measures.
type Store struct {
	// Update is how long an Update took, by "ok", "refused", "not_leader" or "unknown".
	Update Timers
	// Commit is how long raft took to commit an entry, Batch how many Updates it had.
	Commit Timer
	Batch  Sizes
	// Apply is how long an entry took to be applied to this manager's copy.
	Apply Timer
	// Fsync is how long the log's disk took to keep entries.
	Fsync Timer
	// Pending are the Updates that wait, or are under way.
	Pending Level
	// Resets are the subscribers that have to list anew: they were too slow, or the database
	// was replaced.
	Resets Counters
}

// Scheduler is what the leader's scheduler measures.
type Scheduler struct {
	// Plan is how long one plan took; Intents are what came of it, by kind.
	Plan    Timer
	Intents Counters
	// Dirty are the services and nodes that wait to be planned, Dropped the intents that no
	// longer fitted when they were applied.
	Dirty   Level
	Dropped Counters
	// Placement is from a task's creation to its assignment, Start from there to running.
	Placement, Start Timer
	// Ends are the tasks that ended by themselves, by service and state.
	Ends Counters
}

// API is what the Docker Engine API measures.
type API struct {
	// Requests are those answered, by route, method and the first digit of the status, such as
	// "2xx"; Took is how long until the answer was written, by route, for what isn't a stream.
	Requests Counters
	Took     Timers
	// Forwarded are requests passed on to the leader, by "ok" or "failed".
	Forwarded Counters
	// Streams are the answers under way that go on, by kind: "logs", "events", "engine" or "other".
	Streams Levels
}

// Raft is what a manager sees of the managers' elections.
type Raft struct {
	// Elections are those in which this manager stood: why ("silence" or "connection" when the
	// leader was lost, "handover", or "timeout" when raft itself saw no leader), and whether it
	// was "won" or "lost".
	Elections Counters
	// Changes are other leaders than the last one, or the same one after a time with none.
	Changes Counters
	// Leaderless is how long there was none.
	Leaderless Timer
}

// Dispatch is what a manager measures of its agents.
type Dispatch struct {
	// Ends are the ends of sessions, by cause.
	Ends Counters
	// Assign is how long what changed for a node waited until it was sent to its agent.
	Assign Timer
}

// Agent is what an agent measures.
type Agent struct {
	// Calls is how long calls to the engine took, and Errors those that failed, by call:
	// "create" (with the image's fetching), "start", "stop", "inspect", "list" or "remove".
	Calls  Timers
	Errors Counters
}

// Metrics are all instruments of a node.
type Metrics struct {
	Store     Store
	Raft      Raft
	Dispatch  Dispatch
	Agent     Agent
	Scheduler Scheduler
	API       API
	registry  *prometheus.Registry
	readers   []func(*Reading)
}

// quick and slow are the limits of histograms, in seconds: of what takes microseconds to a second, and
// of what takes up to minutes.
var (
	quick = []float64{.00005, .0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5}
	slow  = []float64{.001, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300}
)

// New makes the instruments of a node. They are independent of those of other nodes in the
// same process, but for what is said of the process itself.
func New() *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry()}
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.Store = Store{
		Update: m.timers("skep_store_update_seconds", "How long writes to the database took, by result.", quick, "result"),
		Commit: m.timer("skep_raft_commit_seconds", "How long it took until a quorum had an entry of the log.", quick),
		Apply:  m.timer("skep_raft_apply_seconds", "How long it took to apply a committed entry to this manager's copy.", quick),
		Fsync:  m.timer("skep_store_fsync_seconds", "How long it took until entries of the log were on disk.", quick),
	}
	batch := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "skep_store_batch_size", Help: "How many writes were one entry of the log.", Buckets: []float64{1, 2, 4, 8, 16, 32, 64, 128, 256}})
	m.registry.MustRegister(batch)
	m.Store.Batch = Sizes{batch}
	m.Store.Pending = m.levels("skep_store_proposals_pending", "Writes to the database that wait, or are under way.").Of()
	m.Store.Resets = m.counters("skep_store_subscribers_reset_total", "How often a reader of changes had to list everything anew: it was too slow, or the database was replaced.")
	m.Store.Resets.Add(0)
	m.Scheduler = Scheduler{
		Plan:      m.timer("skep_scheduler_plan_seconds", "How long the leader took to plan what had changed.", quick),
		Intents:   m.counters("skep_scheduler_intents_total", "What plans wanted to be done, by kind.", "kind"),
		Placement: m.timer("skep_task_placement_seconds", "From a task's creation until it had a node.", slow),
		Start:     m.timer("skep_task_start_seconds", "From when a task had a node until it ran.", slow),
		Ends:      m.counters("skep_task_ends_total", "Tasks that ended by themselves, as the leader of that time counted them.", "service", "result"),
	}
	m.Scheduler.Dirty = m.levels("skep_scheduler_dirty", "Services and nodes that wait for the leader to plan them.").Of()
	m.Scheduler.Dropped = m.counters("skep_scheduler_dropped_total", "What plans wanted and what no longer fitted when it was to be done.")
	m.Scheduler.Dropped.Add(0)
	m.API = API{
		Requests:  m.counters("skep_api_requests_total", "Requests that were answered.", "route", "method", "code_class"),
		Took:      m.timers("skep_api_request_seconds", "How long answers took that are no streams.", quick, "route"),
		Forwarded: m.counters("skep_api_forwarded_total", "Requests that were passed on to the leader.", "result"),
		Streams:   m.levels("skep_api_streams", "Answers under way that go on, such as logs that are followed, by kind.", "kind"),
	}
	m.Raft = Raft{
		Elections:  m.counters("skep_raft_elections_total", "Elections in which this manager stood, by why, and by what came of it.", "cause", "result"),
		Changes:    m.counters("skep_raft_leader_changes_total", "How often another manager was found to lead, or the same one again."),
		Leaderless: m.timer("skep_raft_leaderless_seconds", "How long this manager knew of no leader, each time.", slow),
	}
	m.Raft.Changes.Add(0)
	m.Dispatch = Dispatch{
		Ends:   m.counters("skep_dispatch_session_ends_total", "Sessions with agents that ended, by cause.", "cause"),
		Assign: m.timer("skep_dispatch_assign_seconds", "How long what changed for a node waited at this manager until it was sent to its agent.", quick),
	}
	m.Agent = Agent{
		Calls:  m.timers("skep_engine_call_seconds", "How long calls to the engine took; create has the image's fetching in it.", slow, "call"),
		Errors: m.counters("skep_engine_errors_total", "Calls to the engine that failed.", "call"),
	}
	return m
}

func (m *Metrics) timer(name, help string, buckets []float64) Timer {
	h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets})
	m.registry.MustRegister(h)
	return Timer{h}
}

func (m *Metrics) timers(name, help string, buckets []float64, labels ...string) Timers {
	v := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
	m.registry.MustRegister(v)
	return Timers{v}
}

func (m *Metrics) counters(name, help string, labels ...string) Counters {
	v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	m.registry.MustRegister(v)
	return Counters{v}
}

func (m *Metrics) levels(name, help string, labels ...string) Levels {
	v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
	m.registry.MustRegister(v)
	return Levels{v}
}

// OnScrape has read called by each Gather, to add what is then so. It is for who makes the node: before the first Gather.
func (m *Metrics) OnScrape(read func(*Reading)) { m.readers = append(m.readers, read) }

// Gather reads everything, as prometheus.Gatherer says. What it gives is shared with later ones: it must not be changed.
func (m *Metrics) Gather() ([]*dto.MetricFamily, error) {
	families, err := m.registry.Gather()
	var r Reading
	for _, read := range m.readers {
		read(&r)
	}
	families = append(families, r.families...)
	slices.SortFunc(families, func(a, b *dto.MetricFamily) int { return cmp.Compare(a.GetName(), b.GetName()) })
	return families, err
}
