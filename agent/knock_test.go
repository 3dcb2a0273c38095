package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

// TestKnock has a machine answer in all ways that there are, and counts what it is asked.
func TestKnock(t *testing.T) {
	refused := &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	noRoute := &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.EHOSTUNREACH)}
	nothing := errors.New("nothing comes")
	for _, c := range []struct {
		name string
		// says is what comes of each try; the last one is repeated.
		says   []error
		silent bool
		tried  int
		took   time.Duration
	}{
		{"its daemon accepts", []error{nil}, false, 1, 0},
		{"its daemon is dead", []error{refused}, false, 1, 0},
		{"this machine can't ask", []error{os.NewSyscallError("socket", syscall.EMFILE)}, false, 1, 0},
		{"its daemon is dead, and a packet was lost", []error{nothing, nothing, refused}, false, 3, 200 * time.Millisecond},
		{"it is dead", []error{nothing}, true, 4, 400 * time.Millisecond},
		{"it is dead, as a router says", []error{noRoute}, true, 4, 400 * time.Millisecond},
		{"it is dead, as routers say in other ways", []error{syscall.ENETUNREACH, fmt.Errorf("dial: %w", syscall.EHOSTDOWN), syscall.ETIMEDOUT}, true, 4, 400 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tried := 0
				a := &Agent{cfg: Config{SuspectAfter: 100 * time.Millisecond, Knock: func(ctx context.Context, _ netip.Addr) error {
					says := c.says[min(tried, len(c.says)-1)]
					if tried++; says == nothing {
						<-ctx.Done()
						return ctx.Err()
					}
					return says
				}}}
				began := time.Now()
				silent := a.silent(t.Context(), netip.MustParseAddr("192.0.2.2"))
				if took := time.Since(began); silent != c.silent || tried != c.tried || took != c.took {
					t.Errorf("silent %v after %d tries and %v; want %v, %d, %v", silent, tried, took, c.silent, c.tried, c.took)
				}
			})
		})
	}
}

// TestKnock_OfADialer has the real dialer say what tellsNothing knows: at a port whose queue is full, so that the kernel
// answers nothing, and at one where nobody listens.
func TestKnock_OfADialer(t *testing.T) {
	l, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	open := true
	defer func() {
		if open {
			syscall.Close(l)
		}
	}()
	if err := errors.Join(syscall.Bind(l, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), syscall.Listen(l, 0)); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(l)
	if err != nil {
		t.Fatal(err)
	}
	knock := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", fmt.Sprint("127.0.0.1:", name.(*syscall.SockaddrInet4).Port))
		if err == nil {
			t.Cleanup(func() { conn.Close() })
		}
		return err
	}
	unanswered := 0
	for range 40 {
		if err := knock(); err != nil {
			if unanswered++; !tellsNothing(err) {
				t.Fatalf("a connection that took too long: %v", err)
			}
		}
	}
	if unanswered < 30 {
		t.Errorf("only %d of 40 connections to a full queue took too long", unanswered)
	}
	open = false
	syscall.Close(l)
	if err := knock(); err == nil || tellsNothing(err) {
		t.Errorf("a connection that was refused: %v", err)
	}
}

// TestKnocked has what came of knocking be taken in before and after gossip is sure, and after it sees the node again.
func TestKnocked(t *testing.T) {
	a := &Agent{plan: make(chan struct{}, 1), name: make(chan struct{}, 1), log: slog.New(slog.DiscardHandler)}
	s := &taskSet{agent: a, networks: newNetworkSet(&remembered{Networks: []*account{
		{Nodes: []cluster.NetworkNode{{ID: "n", Index: 2}, {ID: "bare", Index: 3}}},
		{Network: testNetwork("web", 4097, swarm.NetworkSpec{}), Endpoints: []cluster.NetworkEndpoint{{ID: "t", Node: 2, Host: 2}}},
	}})}
	n := &s.networks
	gone := sight{since: time.Unix(1, 0)}
	n.missed = missed{"n": gone, "bare": gone, "seen": {}}
	if !s.knocked("n", true) || len(n.gone()) != 0 {
		t.Errorf("gone before gossip is sure: %v", n.gone())
	}
	n.away = map[string]bool{"n": true, "bare": true}
	if !n.gone()["n"] {
		t.Error("it isn't gone though gossip is sure")
	}
	if s.knocked("bare", true) {
		t.Error("a node without endpoints is asked again")
	}
	if s.knocked("seen", true) || n.silent["seen"] {
		t.Error("a node that gossip sees is silent")
	}
	if !s.knocked("n", false) || n.gone()["n"] {
		t.Error("it is gone though it answered")
	}
	n.missed["n"], n.away = sight{left: true}, nil
	if !s.knocked("n", false) || n.gone()["n"] {
		t.Error("one that left in order is gone though it answered")
	}
	if !s.knocked("n", true) || !n.gone()["n"] {
		t.Error("one that left in order isn't gone though it is silent")
	}
}
