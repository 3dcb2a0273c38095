package telemetry

import (
	metrics "github.com/hashicorp/go-metrics/compat"
	"github.com/prometheus/client_golang/prometheus"
)

// Raft and memberlist measure themselves by go-metrics, into what is one for the whole process. Its own way
// to Prometheus lets series end that nobody fed for a minute, and has quantiles, which can't be added up.
// So they go into histograms and counters here, and only those of them that are listed.

// libraryKey is a name that a library gives: at most four words.
type libraryKey [4]string

func keyOf(words []string) (key libraryKey, fits bool) {
	return key, copy(key[:], words) == len(words)
}

// librarySink is what the libraries feed. It is never written to.
type librarySink struct {
	metrics.BlackholeSink // what isn't a sample or a counter
	// samples are in milliseconds.
	samples  map[libraryKey]prometheus.Observer
	counters map[libraryKey]prometheus.Counter
}

func (s *librarySink) AddSample(words []string, ms float32) { s.AddSampleWithLabels(words, ms, nil) }

// AddSampleWithLabels counts a duration; labels name the other manager, and are dropped.
func (s *librarySink) AddSampleWithLabels(words []string, ms float32, _ []metrics.Label) {
	if key, fits := keyOf(words); fits && s.samples[key] != nil {
		s.samples[key].Observe(max(float64(ms), 0) / 1000)
	}
}

func (s *librarySink) IncrCounter(words []string, by float32) {
	s.IncrCounterWithLabels(words, by, nil)
}

// IncrCounterWithLabels counts.
func (s *librarySink) IncrCounterWithLabels(words []string, by float32, _ []metrics.Label) {
	if key, fits := keyOf(words); fits && s.counters[key] != nil {
		s.counters[key].Add(max(float64(by), 0))
	}
}

// librariesOf makes the series of what the libraries measure.
func librariesOf(m *Metrics) *librarySink {
	rpc := m.timers("skep_raft_rpc_seconds", "How long other managers took to answer this one, by what raft asked.", quick, "rpc")
	snapshot := m.timers("skep_raft_snapshot_seconds", "How long snapshots took: to take one (persist is the part that writes it), and to read one back.", slow, "op")
	probe := m.timer("skep_gossip_probe_seconds", "How long probes of other nodes by gossip took.", quick)
	news := m.counters("skep_gossip_news_total", "What gossip was told of nodes, by kind.", "kind")
	return &librarySink{
		samples: map[libraryKey]prometheus.Observer{
			{"raft", "replication", "appendEntries", "rpc"}: rpc.Of("append").of,
			{"raft", "replication", "heartbeat"}:            rpc.Of("heartbeat").of,
			{"raft", "replication", "installSnapshot"}:      rpc.Of("snapshot").of,
			{"raft", "candidate", "electSelf"}:              rpc.Of("vote").of,
			{"raft", "candidate", "preElectSelf"}:           rpc.Of("vote").of,
			{"raft", "snapshot", "takeSnapshot"}:            snapshot.Of("take").of,
			{"raft", "snapshot", "persist"}:                 snapshot.Of("persist").of,
			{"raft", "fsm", "restore"}:                      snapshot.Of("restore").of,
			{"memberlist", "probeNode"}:                     probe.of,
		},
		counters: map[libraryKey]prometheus.Counter{
			{"memberlist", "msg", "alive"}:   news.of.WithLabelValues("alive"),
			{"memberlist", "msg", "suspect"}: news.of.WithLabelValues("suspect"),
			{"memberlist", "msg", "dead"}:    news.of.WithLabelValues("dead"),
		},
	}
}

// OfProcess has m count what raft and memberlist measure of themselves, too. They do that for the whole
// process, so it is for the one that has one node.
func (m *Metrics) OfProcess() error {
	_, err := metrics.NewGlobal(&metrics.Config{FilterDefault: true, TimerGranularity: 1e6}, librariesOf(m))
	return err
}
