package clustertest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/docker/docker/api/types/events"

	"skep/cluster/node"
)

// audience is two clients who follow the cluster's events by one manager, as long as
// its daemon lives: one who stays, and one who goes and comes back, asking for what
// was since. Both must be told the same.
type audience struct {
	m      *Machine
	node   *node.Node
	random *rand.Rand
	over   context.CancelFunc
	done   sync.WaitGroup

	mu           sync.Mutex // guards the fields below
	stays, comes []events.Message
	// heard is how much of stays there was when comes last went: the rest was told to
	// nobody else.
	heard int
}

// attend has clients listen to a machine's daemon.
func attend(m *Machine, random *rand.Rand) *audience {
	m.mu.Lock()
	a := &audience{m: m, node: m.node, random: random}
	m.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	a.over = cancel
	a.done.Go(func() { a.come(ctx) })
	a.done.Go(func() { a.listen(ctx, "", &a.stays) })
	return a
}

// come listens, goes and comes back until ctx ends.
func (a *audience) come(ctx context.Context) {
	for since := int64(1); ctx.Err() == nil; {
		short, cancel := context.WithTimeout(ctx, time.Duration(50+a.random.IntN(2000))*time.Millisecond)
		a.listen(short, fmt.Sprintf("&since=%d.%09d", since/1e9, since%1e9), &a.comes)
		cancel()
		a.mu.Lock()
		a.heard = len(a.stays)
		if n := len(a.comes); n > 0 {
			since = a.comes[n-1].TimeNano + 1
		}
		a.mu.Unlock()
		select {
		case <-time.After(time.Duration(a.random.IntN(1000)) * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// listen reads the stream of events until ctx ends.
func (a *audience) listen(ctx context.Context, since string, into *[]events.Message) {
	path := "/v1.51/events?filters=" + url.QueryEscape(`{"scope":["swarm"]}`) + since
	a.node.API().ServeHTTP(&reader{header: http.Header{}, line: func(line []byte) {
		var message events.Message
		if json.Unmarshal(line, &message) == nil {
			a.mu.Lock()
			*into = append(*into, message)
			a.mu.Unlock()
		}
	}}, httptest.NewRequestWithContext(ctx, http.MethodGet, path, nil))
}

// leave ends the clients, and tells what was wrong with what they were told. told is
// what the database went through, or nil when that isn't known.
func (a *audience) leave(told []string) (wrong []string) {
	a.over()
	a.done.Wait()
	fail := func(format string, args ...any) {
		wrong = append(wrong, fmt.Sprintf("events of %s: ", a.m.Name)+fmt.Sprintf(format, args...))
	}
	for i := 1; i < len(a.stays); i++ {
		if a.stays[i].TimeNano <= a.stays[i-1].TimeNano {
			fail("%v comes after %v, and isn't later", a.stays[i], a.stays[i-1])
		}
	}
	stays, comes := texts(a.stays[:a.heard]), texts(a.comes)
	if !within(stays, comes) {
		fail("who comes and goes is told\n%s\nand who stays\n%s", strings.Join(comes, "\n"), strings.Join(stays, "\n"))
	}
	var services []string
	for _, m := range a.stays {
		if m.Type == events.ServiceEventType && m.Actor.Attributes["updatestate.new"] == "" {
			services = append(services, fmt.Sprint(m.Action, " ", m.Actor.ID))
		}
	}
	if told != nil && !within(services, told) {
		fail("clients are told\n%s\nand what was is\n%s", strings.Join(services, "\n"), strings.Join(told, "\n"))
	}
	return wrong
}

// within tells whether part stands in whole, without anything between; both may end
// a little early.
func within(part, whole []string) bool {
	for from := range len(whole) + 1 {
		n := min(len(part), len(whole)-from)
		if len(part)-n <= 20 && slices.Equal(part[:n], whole[from:from+n]) {
			return true
		}
	}
	return false
}

func texts(messages []events.Message) []string {
	var texts []string
	for _, m := range messages {
		texts = append(texts, fmt.Sprint(m.TimeNano, " ", m.Type, " ", m.Action, " ", m.Actor.ID, " ", m.Actor.Attributes))
	}
	return texts
}

// reader is a client of a stream of lines.
type reader struct {
	header http.Header
	rest   []byte
	line   func([]byte)
}

func (r *reader) Header() http.Header { return r.header }
func (r *reader) WriteHeader(int)     {}
func (r *reader) Flush()              {}

func (r *reader) Write(p []byte) (int, error) {
	r.rest = append(r.rest, p...)
	for {
		at := bytes.IndexByte(r.rest, '\n')
		if at < 0 {
			return len(p), nil
		}
		r.line(r.rest[:at])
		r.rest = r.rest[at+1:]
	}
}
