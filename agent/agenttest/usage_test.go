package agenttest_test

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"testing"
	"time"

	"skep/agent"
	"skep/cluster"
)

// sampled is a driver that tells what containers use: a look later they have used more.
type sampled struct {
	agent.Driver

	mu     sync.Mutex // guards the fields below
	looks  int
	failed error
}

func (s *sampled) Usage(context.Context, string) (cluster.Usage, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.looks++
	return cluster.Usage{At: time.Unix(int64(s.looks), 0), Memory: uint64(s.looks)}, s.failed
}

// What tasks use is looked at when somebody asks, once for all who ask in a moment.
func TestUsage_IsLookedAtWhenAsked(t *testing.T) {
	e := newAskedEngine(t)
	driver := &sampled{}
	c := newCaller(t, e, func(d agent.Driver) agent.Driver { driver.Driver = d; return driver })
	defer c.stop()
	ask := func(path string) (told []cluster.TaskUsage) {
		t.Helper()
		_, _, answer := c.ask("GET", path, "")
		if err := json.NewDecoder(answer.Body).Decode(&told); err != nil || answer.StatusCode != 200 {
			t.Fatalf("%s: %d, %v", path, answer.StatusCode, err)
		}
		return told
	}
	if told := ask("/skep/v1/usage"); len(told) != 1 || told[0].TaskID != "t1" || len(told[0].Usage) == 0 || told[0].Err != "" {
		t.Errorf("%+v", told)
	}
	if told := ask("/skep/v1/usage?service=s1&history=1"); len(told) != 1 || told[0].TaskID != "t1" {
		t.Errorf("%+v", told)
	}
	if told := ask("/skep/v1/usage?service=other"); len(told) != 0 {
		t.Errorf("%+v", told)
	}
	driver.mu.Lock()
	driver.failed = errors.New("it is gone")
	driver.mu.Unlock()
	eventually(t, "the error", func() bool {
		told := ask("/skep/v1/usage")
		return len(told) == 1 && told[0].Err == "it is gone" && len(told[0].Usage) == 0
	})
}

func TestUsage_OfADriverThatDoesntTell(t *testing.T) {
	e := newAskedEngine(t)
	c := newCaller(t, e, func(d agent.Driver) agent.Driver { return d })
	defer c.stop()
	if _, _, answer := c.ask("GET", "/skep/v1/usage", ""); answer.StatusCode != 501 {
		t.Errorf("%+v", answer)
	}
}
