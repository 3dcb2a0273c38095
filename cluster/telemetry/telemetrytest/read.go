// Package telemetrytest reads what was measured, for tests of what measures.
package telemetrytest

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// Read gives all series, each by its name and the values of its labels, with a space before each of these. What
// isn't among them is nil, of which all getters give zero.
func Read(t testing.TB, of prometheus.Gatherer) map[string]*dto.Metric {
	t.Helper()
	families, err := of.Gather()
	if err != nil {
		t.Fatal(err)
	}
	read := map[string]*dto.Metric{}
	for _, f := range families {
		for _, m := range f.Metric {
			name := f.GetName()
			for _, label := range m.Label {
				name += " " + label.GetValue()
			}
			read[name] = m
		}
	}
	return read
}
