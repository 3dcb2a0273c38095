package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"golang.org/x/sync/errgroup"
)

// rate is requests through one manager in a second, and how long all managers had a processor
// for each.
type rate struct {
	perSecond float64
	processor time.Duration
}

// followerClients are how many clients ask the follower at a time, and what must be reached then beside Docker
// Swarm, of creates and of reads.
var followerClients = []struct {
	clients           int
	creates, inspects float64
}{{1, 4, 5}, {16, 12, 8}, {64, 15, 10}}

// followerSpan is how long each number of clients asks.
const followerSpan = 4 * time.Second

// benchFollower creates services and looks at one through one manager that doesn't lead, of three with their logs on disk
// and synced, and does the same with Docker Swarm. The clients are as small as can be, the same for both: what they
// take of the processors is taken from both.
func benchFollower(ctx context.Context, b *bench) (err error) {
	p, err := b.formed(ctx, "simulate", 3, 3)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	leader, err := p.leader(ctx, p.anyManager())
	if err != nil {
		return err
	}
	var follower *node
	var pids []int
	for _, n := range p.nodes {
		pids = append(pids, n.cmd.Process.Pid)
		if n != leader {
			follower = n
		}
	}
	ours, err := followerRates(ctx, follower.socket(), pids)
	if err != nil {
		return err
	}
	// Not at the same time: they would take each other's processors.
	for _, n := range p.nodes {
		n.kill()
	}
	theirs, swarmErr := swarmFollowerRates(ctx)
	for i, at := range followerClients {
		for _, row := range []struct {
			what string
			must float64
		}{{"creates", at.creates}, {"inspects", at.inspects}} {
			f := finding{
				what:     fmt.Sprintf("service %s/s through a follower of three managers, %d clients", row.what, at.clients),
				measured: ours[row.what][i].text(), must: fmt.Sprintf("at least %.0f × Swarm", row.must),
			}
			if swarmErr == nil {
				factor := ours[row.what][i].perSecond / theirs[row.what][i].perSecond
				f.measured += fmt.Sprintf(" = %.1f ×", factor)
				f.reference, f.reached = "Swarm "+theirs[row.what][i].text(), factor >= row.must
			}
			b.add(f)
		}
	}
	if swarmErr != nil {
		b.skip("three managers of Docker Swarm", swarmErr)
	}
	return nil
}

func (r rate) text() string {
	return fmt.Sprintf("%.0f/s, %d µs of a core each", r.perSecond, r.processor.Microseconds())
}

// swarmFollowerRates are followerRates of Docker Swarm.
func swarmFollowerRates(ctx context.Context) (rates map[string][]rate, err error) {
	s, err := newRealSwarm(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	_, other, err := s.leader(ctx)
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, e := range s.engines {
		pids = append(pids, e.cmd.Process.Pid) // nsenter becomes dockerd
	}
	return followerRates(ctx, other.socket(), pids)
}

// followerRates measures creates and inspects through the manager at host, for each number of clients.
func followerRates(ctx context.Context, host string, pids []int) (map[string][]rate, error) {
	api, err := connect(host)
	if err != nil {
		return nil, err
	}
	defer api.Close()
	if _, err := api.ServiceCreate(ctx, benchSpec("looked-at", 0), swarm.ServiceCreateOptions{}); err != nil {
		return nil, err
	}
	rates, run := map[string][]rate{}, time.Now().UnixNano()
	for _, at := range followerClients {
		inspects, err := requestRate(ctx, host, at.clients, pids, func(int, int) []byte {
			return []byte("GET /v1.41/services/looked-at HTTP/1.1\r\nHost: docker\r\n\r\n")
		})
		if err != nil {
			return nil, err
		}
		creates, err := requestRate(ctx, host, at.clients, pids, func(client, n int) []byte {
			spec, err := json.Marshal(benchSpec(fmt.Sprintf("made-%d-%d-%d-%d", run, at.clients, client, n), 0))
			if err != nil {
				return nil
			}
			return fmt.Appendf(nil, "POST /v1.41/services/create HTTP/1.1\r\nHost: docker\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(spec), spec)
		})
		if err != nil {
			return nil, err
		}
		rates["inspects"], rates["creates"] = append(rates["inspects"], inspects), append(rates["creates"], creates)
	}
	return rates, nil
}

// requestRate lets that many clients, each with a connection of its own, make one request after the other.
func requestRate(ctx context.Context, host string, clients int, pids []int, request func(client, n int) []byte) (rate, error) {
	deadline, stop := context.WithTimeout(ctx, followerSpan)
	defer stop()
	used := func() (total time.Duration, err error) {
		for _, pid := range pids {
			one, err := processorTime(pid)
			if err != nil {
				return 0, err
			}
			total += one
		}
		return total, nil
	}
	before, err := used()
	if err != nil {
		return rate{}, err
	}
	var answered atomic.Int64
	start := time.Now()
	group := new(errgroup.Group)
	for c := range clients {
		group.Go(func() error {
			conn, err := net.Dial("unix", strings.TrimPrefix(host, "unix://"))
			if err != nil {
				return err
			}
			defer conn.Close()
			in := bufio.NewReader(conn)
			for n := 0; deadline.Err() == nil; n++ {
				if _, err := conn.Write(request(c, n)); err != nil {
					return err
				}
				answer, err := http.ReadResponse(in, nil)
				if err != nil {
					return err
				}
				body, err := io.ReadAll(answer.Body)
				if err != nil {
					return err
				}
				if answer.StatusCode >= 300 {
					return fmt.Errorf("answer %d: %s", answer.StatusCode, bytes.TrimSpace(body))
				}
				answered.Add(1)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return rate{}, err
	}
	took := time.Since(start)
	after, err := used()
	if n := answered.Load(); err == nil && n > 0 {
		return rate{float64(n) / took.Seconds(), (after - before) / time.Duration(n)}, nil
	}
	return rate{}, errors.Join(err, errors.New("no request was answered"))
}
