package telemetry

import (
	"cmp"
	"fmt"
	"slices"

	dto "github.com/prometheus/client_model/go"
)

// Gauge is what is read at a scrape: a series, or one for each of the values of labels.
type Gauge struct{ of *gauge }

type gauge struct {
	name, help string
	// labels are in the order in which they are shown, and of[i] is the place of the i-th among the values that Set is given.
	labels []string
	of     []int
}

// maxLabels is how many labels a Gauge has at most.
const maxLabels = 4

// NewGauge describes a Gauge.
func NewGauge(name, help string, labels ...string) Gauge {
	g := &gauge{name: name, help: help}
	for i := range labels {
		g.of = append(g.of, i)
	}
	slices.SortFunc(g.of, func(a, b int) int { return cmp.Compare(labels[a], labels[b]) })
	for _, i := range g.of {
		g.labels = append(g.labels, labels[i])
	}
	return Gauge{g}
}

// Reading takes the values of Gauges at one scrape. The zero value has none.
//
// It makes what is served without a registry in between, which would allocate, hash and sort each of the thousands of
// series of a leader: so nothing here finds out that a series was set twice. Tests do.
type Reading struct {
	families []*dto.MetricFamily
	known    map[*gauge]*dto.MetricFamily
	pairs    map[pair]*dto.LabelPair
	room     []series
}

type pair struct{ label, value string }

// series is what one takes of memory, in one piece.
type series struct {
	metric dto.Metric
	gauge  dto.Gauge
	value  float64
	labels [maxLabels]*dto.LabelPair
}

// roomStep is for how many series there is room at once.
const roomStep = 256

// Set takes the value of one series.
func (r *Reading) Set(g Gauge, value float64, labels ...string) {
	if len(labels) != len(g.of.labels) {
		panic(fmt.Sprintf("%s has %d labels, and not %d", g.of.name, len(g.of.labels), len(labels)))
	}
	if len(r.room) == 0 {
		r.room = make([]series, roomStep)
	}
	s := &r.room[0]
	r.room = r.room[1:]
	for i, name := range g.of.labels {
		s.labels[i] = r.pair(name, labels[g.of.of[i]])
	}
	s.value = value
	s.gauge.Value = &s.value
	s.metric.Gauge, s.metric.Label = &s.gauge, s.labels[:len(labels):len(labels)]
	f := r.family(g)
	f.Metric = append(f.Metric, &s.metric)
}

// When sets 1 when something is so, and 0 otherwise.
func (r *Reading) When(g Gauge, is bool, labels ...string) {
	value := 0.0
	if is {
		value = 1
	}
	r.Set(g, value, labels...)
}

// Add takes what another Reading has of other Gauges. That one may go on being added, and must not be set any more.
func (r *Reading) Add(other *Reading) { r.families = append(r.families, other.families...) }

func (r *Reading) family(g Gauge) *dto.MetricFamily {
	f := r.known[g.of]
	if f == nil {
		if r.known == nil {
			r.known = map[*gauge]*dto.MetricFamily{}
		}
		f = &dto.MetricFamily{Name: &g.of.name, Help: &g.of.help, Type: dto.MetricType_GAUGE.Enum()}
		r.known[g.of] = f
		r.families = append(r.families, f)
	}
	return f
}

// pair is a label with its value: one in memory, however many series have it.
func (r *Reading) pair(label, value string) *dto.LabelPair {
	p := r.pairs[pair{label, value}]
	if p == nil {
		if r.pairs == nil {
			r.pairs = map[pair]*dto.LabelPair{}
		}
		p = &dto.LabelPair{Name: &label, Value: &value}
		r.pairs[pair{label, value}] = p
	}
	return p
}
