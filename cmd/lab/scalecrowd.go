package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"skep/cluster"
	"skep/cmd/lab/crowd"
	"skep/cmd/lab/report"
)

// crowdConfig is the first line that a process of agents reads. The token isn't among its arguments, which anybody
// may see.
type crowdConfig struct {
	Managers []string
	Token    string
	// Block is the second part of the agents' addresses, First the number of the first one, in all of the run.
	Block, First int
	Networks     bool
}

// crowdOrder is every further line, crowdAnswer what it is answered with.
type crowdOrder struct {
	ID int
	// Do is "join", "count" or "kill".
	Do string
	// Count is how many agents join or are killed; for "count", of how many of the first ones the tasks are counted.
	Count, AtOnce int
}

type crowdAnswer struct {
	ID    int
	Error string
	Count crowd.Count
	IDs   []string
}

// joinsAtOnce is how many agents are on their way in at a time, all processes together: a manager has room for 128.
const joinsAtOnce = 96

// crowdProcess is a process of agents, as the lab sees it.
type crowdProcess struct {
	name   string
	agents int
	// ids are the agents' node IDs, once all have joined.
	ids    []string
	cmd    *exec.Cmd
	orders io.WriteCloser
	ended  chan struct{}

	mu      sync.Mutex // guards the fields below, and writing orders
	last    int
	waiting map[int]chan crowdAnswer
}

// agentAddr is the address of an agent: all of 127.0.0.0/8 is this machine's.
func agentAddr(block, number int) netip.Addr {
	return netip.AddrFrom4([4]byte{127, byte(block), byte(number / 250), byte(number%250 + 1)})
}

// startCrowds starts the processes of agents, which join nothing yet.
func (x *scaling) startCrowds(ctx context.Context) error {
	tokens, err := x.p.nodes[0].api.SwarmInspect(ctx)
	if err != nil {
		return fmt.Errorf("read join tokens: %w", err)
	}
	config := crowdConfig{Token: tokens.JoinTokens.Worker, Block: x.block, Networks: x.o.networks}
	for _, n := range x.p.nodes {
		config.Managers = append(config.Managers, n.addr+":2377")
	}
	for i := range x.o.processes {
		count := x.o.agents / x.o.processes
		if i < x.o.agents%x.o.processes {
			count++
		}
		c := &crowdProcess{name: fmt.Sprintf("agents-%d", i+1), agents: count, waiting: map[int]chan crowdAnswer{}}
		if err := c.start(filepath.Join(x.p.bin, "lab"), filepath.Join(x.p.dir, c.name+".log"), config); err != nil {
			return err
		}
		config.First += count
		x.crowds = append(x.crowds, c)
		x.run.Processes = append(x.run.Processes, report.ScaleProcess{Name: c.name})
	}
	return nil
}

func (c *crowdProcess) start(program, logFile string, config crowdConfig) error {
	log, err := os.OpenFile(logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	c.cmd = exec.Command(program, "scale-agents")
	c.cmd.Stderr = log
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if c.orders, err = c.cmd.StdinPipe(); err != nil {
		return err
	}
	answers, err := c.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := c.cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", c.name, err)
	}
	pid := c.cmd.Process.Pid
	waitedFor.Store(pid, true)
	c.ended = make(chan struct{})
	go func() {
		defer close(c.ended)
		read := json.NewDecoder(answers)
		for {
			var a crowdAnswer
			if read.Decode(&a) != nil {
				break
			}
			c.mu.Lock()
			if to := c.waiting[a.ID]; to != nil {
				to <- a
				delete(c.waiting, a.ID)
			}
			c.mu.Unlock()
		}
		_ = c.cmd.Wait()
		waitedFor.Delete(pid)
	}()
	return json.NewEncoder(c.orders).Encode(config)
}

// ask gives an order and waits for the answer.
func (c *crowdProcess) ask(ctx context.Context, order crowdOrder) (crowdAnswer, error) {
	answer := make(chan crowdAnswer, 1)
	c.mu.Lock()
	c.last++
	order.ID = c.last
	c.waiting[order.ID] = answer
	err := json.NewEncoder(c.orders).Encode(order)
	c.mu.Unlock()
	if err != nil {
		return crowdAnswer{}, fmt.Errorf("ask %s: %w", c.name, err)
	}
	select {
	case a := <-answer:
		if a.Error != "" {
			return a, fmt.Errorf("%s: %s", c.name, a.Error)
		}
		return a, nil
	case <-c.ended:
		return crowdAnswer{}, fmt.Errorf("%s ended", c.name)
	case <-ctx.Done():
		return crowdAnswer{}, ctx.Err()
	}
}

func (c *crowdProcess) close() {
	if c.cmd == nil || c.cmd.Process == nil || c.ended == nil {
		return
	}
	_ = c.cmd.Process.Kill()
	<-c.ended
}

// askAll gives all processes an order, each its own, and waits for all answers.
func (x *scaling) askAll(ctx context.Context, order func(*crowdProcess) crowdOrder) ([]crowdAnswer, error) {
	answers := make([]crowdAnswer, len(x.crowds))
	group, asking := errgroup.WithContext(ctx)
	for i, c := range x.crowds {
		group.Go(func() (err error) {
			answers[i], err = c.ask(asking, order(c))
			return err
		})
	}
	return answers, group.Wait()
}

// count adds up how the agents are; the first ones of each process are those that were drained.
func (x *scaling) count(ctx context.Context) (all crowd.Count, err error) {
	answers, err := x.askAll(ctx, func(*crowdProcess) crowdOrder { return crowdOrder{Do: "count", Count: x.drained} })
	for _, a := range answers {
		all.Joined += a.Count.Joined
		all.Sessions += a.Count.Sessions
		all.Running += a.Count.Running
		all.RunningFirst += a.Count.RunningFirst
		all.Started += a.Count.Started
	}
	return all, err
}

// runCrowd is the process of agents: it reads orders until there are no more.
func runCrowd(ctx context.Context, _ lab, _ []string) error {
	lines := bufio.NewReader(os.Stdin)
	read := json.NewDecoder(lines)
	var config crowdConfig
	if err := read.Decode(&config); err != nil {
		return fmt.Errorf("scale-agents: read what to do: %w", err)
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	all, err := crowd.New(crowd.Config{
		Managers: config.Managers, Token: config.Token, Networks: config.Networks,
		Addr:    func(number int) netip.Addr { return agentAddr(config.Block, config.First+number) },
		Name:    func(number int) string { return fmt.Sprintf("a%d", config.First+number+1) },
		Machine: "scale", Build: cluster.NewBuild("scale"), Now: time.Now, Random: rand.Reader,
		Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		return err
	}
	var mu sync.Mutex // guards write
	write := json.NewEncoder(os.Stdout)
	answer := func(a crowdAnswer, err error) {
		if err != nil {
			a.Error = err.Error()
		}
		mu.Lock()
		defer mu.Unlock()
		_ = write.Encode(a) // Whoever asked is gone when it can't be written, and the next read ends this.
	}
	for {
		var order crowdOrder
		if err := read.Decode(&order); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("scale-agents: read an order: %w", err)
		}
		a := crowdAnswer{ID: order.ID}
		switch order.Do {
		case "join":
			go func() {
				err := all.Join(ctx, order.Count, order.AtOnce)
				a.IDs = all.IDs()
				answer(a, err)
			}()
		case "count":
			a.Count = all.Count(order.Count)
			answer(a, nil)
		case "kill":
			a.IDs = all.Kill(order.Count)
			answer(a, nil)
		default:
			answer(a, fmt.Errorf("order %q: there is no such", order.Do))
		}
	}
}
