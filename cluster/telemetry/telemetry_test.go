package telemetry

import (
	"fmt"
	"testing"
	"time"

	metrics "github.com/hashicorp/go-metrics/compat"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
)

// Whoever is given nothing measures nothing.
func TestZero_MeasuresNothing(t *testing.T) {
	var m Metrics
	m.Store.Update.Of("ok").Took(time.Second)
	m.Store.Commit.Took(time.Second)
	m.Store.Batch.Was(3)
	m.Scheduler.Intents.Add(1, "assign")
	m.API.Requests.Add(1, "/nodes", "GET", "2xx")
	m.Store.Pending.Add(1)
	m.Scheduler.Dirty.Is(3)
	m.API.Streams.Of("logs").Add(1)
}

func TestNew_Lints(t *testing.T) {
	m := New()
	librariesOf(m)
	m.Store.Update.Of("ok").Took(-time.Second)
	m.Store.Batch.Was(3)
	m.Scheduler.Intents.Add(2, "assign")
	m.API.Requests.Add(1, "/nodes", "GET", "2xx")
	problems, err := testutil.GatherAndLint(m)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	families, err := m.Gather()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]float64{}
	for _, f := range families {
		for _, metric := range f.Metric {
			found[f.GetName()] += metric.GetCounter().GetValue() + metric.GetHistogram().GetSampleSum()
		}
	}
	if found["skep_store_batch_size"] != 3 || found["skep_scheduler_intents_total"] != 2 || found["skep_store_update_seconds"] != 0 {
		t.Errorf("%v", found)
	}
	// Two nodes in one process are two.
	if families, err = New().Gather(); err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "skep_scheduler_intents_total" {
			t.Errorf("a second node has what the first counted: %v", f)
		}
	}
}

// What is read at a scrape is as a registry would show it, also when another reading is added to it.
func TestReading(t *testing.T) {
	m := New()
	nodes := NewGauge("skep_test_nodes", "Nodes.", "state", "hostname")
	up := NewGauge("skep_test_up", "Whether it is up.")
	var last *Reading
	m.OnScrape(func(to *Reading) {
		if last == nil {
			last = &Reading{}
			for i := range roomStep + 1 {
				last.Set(nodes, float64(i), "ready", fmt.Sprint("n", i))
			}
		}
		to.When(up, true)
		to.Add(last)
	})
	for range 2 { // The second time it is what was read before.
		families, err := prometheus.Gatherers{m}.Gather()
		if err != nil {
			t.Fatal(err)
		}
		found := map[string]*dto.MetricFamily{}
		for _, f := range families {
			found[f.GetName()] = f
		}
		if f := found["skep_test_up"]; f.GetType() != dto.MetricType_GAUGE || f.GetHelp() != "Whether it is up." || len(f.Metric) != 1 || f.Metric[0].GetGauge().GetValue() != 1 {
			t.Errorf("%v", f)
		}
		f := found["skep_test_nodes"]
		if len(f.GetMetric()) != roomStep+1 {
			t.Fatalf("%d series", len(f.GetMetric()))
		}
		for _, one := range f.Metric {
			labels := one.Label
			if want := fmt.Sprint("n", one.GetGauge().GetValue()); len(labels) != 2 || labels[0].GetName() != "hostname" || labels[0].GetValue() != want || labels[1].GetName() != "state" || labels[1].GetValue() != "ready" {
				t.Fatalf("%v, want the host name %s", one, want)
			}
		}
	}
	// A series that was set twice is found.
	m.OnScrape(func(to *Reading) { to.Set(up, 0) })
	if _, err := (prometheus.Gatherers{m}).Gather(); err == nil {
		t.Error("a series is there twice")
	}
}

// What the libraries measure is shown where it is listed, under one name for all managers.
func TestOfProcess(t *testing.T) {
	m := New()
	sink := librariesOf(m)
	sink.AddSampleWithLabels([]string{"raft", "replication", "heartbeat"}, 2, []metrics.Label{{Name: "peer_id", Value: "n1"}})
	sink.AddSample([]string{"raft", "replication", "heartbeat"}, 3)
	sink.AddSample([]string{"raft", "fsm", "enqueue"}, 3)
	sink.AddSample([]string{"one", "of", "too", "many", "words"}, 3)
	sink.IncrCounterWithLabels([]string{"memberlist", "msg", "dead"}, 2, nil)
	sink.IncrCounter([]string{"memberlist", "udp", "sent"}, 2)
	sink.SetGauge([]string{"raft", "peers"}, 3)
	families, err := m.Gather()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]float64{}
	for _, f := range families {
		for _, one := range f.Metric {
			if len(one.Label) == 1 {
				found[f.GetName()+" "+one.Label[0].GetValue()] = one.GetHistogram().GetSampleSum() + one.GetCounter().GetValue()
			}
			for _, label := range one.Label {
				if label.GetName() == "peer_id" {
					t.Errorf("%s has a label for each manager", f.GetName())
				}
			}
		}
	}
	if found["skep_raft_rpc_seconds heartbeat"] != .005 || found["skep_gossip_news_total dead"] != 2 || found["skep_gossip_news_total alive"] != 0 {
		t.Errorf("%v", found)
	}
}

// What raft and memberlist pay for each that isn't listed, and for one that is.
func BenchmarkOfProcess(b *testing.B) {
	sink := librariesOf(New())
	for _, words := range [][]string{{"raft", "fsm", "enqueue"}, {"raft", "replication", "heartbeat"}} {
		b.Run(words[2], func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				sink.AddSampleWithLabels(words, 2, nil)
			}
		})
	}
}

// What it costs where nobody is interested.
func BenchmarkTook_Nothing(b *testing.B) {
	var timer Timer
	for b.Loop() {
		timer.Took(time.Millisecond)
	}
}

func BenchmarkTook(b *testing.B) {
	timer := New().Store.Commit
	for b.Loop() {
		timer.Took(time.Millisecond)
	}
}
