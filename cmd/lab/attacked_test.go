package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"
)

// What an attacker is told: where to, and for how long.
type targets struct {
	Addrs, Sockets []string
	For            time.Duration
}

// attacked is what it did.
type attacked struct {
	Handshakes, Connections, Packets, Streams, Requests atomic.Int64
}

const attackEnv = "SKEP_LAB_ATTACK"

// All ports of three managers are flooded at once, each as fast as the attacker can: they stay
// small, keep their leader but for one election, and users write. An attacker elsewhere would
// have processors of its own, and here it takes the managers': so it is a process of the lowest
// priority, and does what they leave it.
func TestAttacked_ManagersStaySmallAndLead(t *testing.T) {
	if text := os.Getenv(attackEnv); text != "" {
		var to targets
		if err := json.Unmarshal([]byte(text), &to); err != nil {
			t.Fatal(err)
		}
		did := to.attack(t.Context())
		fmt.Printf("ATTACKED %d %d %d %d %d\n", did.Handshakes.Load(), did.Connections.Load(), did.Packets.Load(), did.Streams.Load(), did.Requests.Load())
		return
	}
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	p, err := newProcesses(ctx, lab{bin: binaries(t), engine: "unix:///nowhere"}, "simulate", 5)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.close(); err != nil {
			t.Error(err)
		}
	}()
	if err := p.form(ctx, 3); err != nil {
		t.Fatal(err)
	}
	before, err := clusterStatus(ctx, p.nodes[0].api)
	if err != nil {
		t.Fatal(err)
	}
	const span = 20 * time.Second
	to := targets{For: span}
	for _, n := range p.nodes[:3] {
		to.Addrs, to.Sockets = append(to.Addrs, n.addr), append(to.Sockets, n.socket())
	}
	text, err := json.Marshal(to)
	if err != nil {
		t.Fatal(err)
	}
	attacker := exec.CommandContext(ctx, "nice", "-n", "19", os.Args[0], "-test.run", "^TestAttacked_ManagersStaySmallAndLead$")
	attacker.Env = append(os.Environ(), attackEnv+"="+string(text))
	said, err := attacker.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := attacker.Start(); err != nil {
		t.Fatal(err)
	}
	var did [5]int64
	told := make(chan error, 1)
	go func() {
		for lines := bufio.NewScanner(said); lines.Scan(); {
			fmt.Sscanf(lines.Text(), "ATTACKED %d %d %d %d %d", &did[0], &did[1], &did[2], &did[3], &did[4])
		}
		told <- attacker.Wait()
	}()

	users := newUsers(ctx, t, p)
	most := map[string]int64{}
	began := time.Now()
	for time.Since(began) < span {
		time.Sleep(100 * time.Millisecond)
		for _, n := range p.nodes[:3] {
			size, err := resident(n.cmd.Process.Pid)
			if err != nil {
				t.Fatalf("%s: %v", n.name, errors.Join(err, n.alive()))
			}
			most[n.name] = max(most[n.name], size)
		}
	}
	writes, failed, longest := users.stop()
	if err := <-told; err != nil {
		t.Fatal(err)
	}
	var after uint64
	err = until(ctx, 10*time.Second, "the cluster's status", func(ctx context.Context) error {
		status, err := clusterStatus(ctx, p.nodes[0].api)
		if err == nil {
			after = status.Term
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the attacker had %d handshakes done, opened %d other connections, sent %d packets and %d streams of gossip, and made %d requests in %s",
		did[0], did[1], did[2], did[3], did[4], span)
	t.Logf("users wrote %d times, at most %s apart, and failed %d times (%v); term %d to %d", writes, longest, failed, users.last.Load(), before.Term, after)
	for i, many := range did {
		if many < 100 {
			t.Errorf("the attacker did only %d of number %d", many, i)
		}
	}
	for _, n := range p.nodes[:3] {
		t.Logf("%s had %d MB in memory", n.name, most[n.name]>>20)
		if most[n.name] > 300<<20 {
			t.Errorf("%s had %d MB in memory", n.name, most[n.name]>>20)
		}
		if log, err := os.Stat(n.logFile); err != nil || log.Size() > 256<<10 {
			t.Errorf("the log of %s has %d kB, %v", n.name, log.Size()>>10, err)
		}
	}
	if after > before.Term+1 {
		t.Errorf("%d elections", after-before.Term)
	}
	if writes < 50 || longest > 5*time.Second {
		t.Errorf("users wrote %d times, at most %s apart", writes, longest)
	}
	p.all(t)
	if t.Failed() {
		for _, n := range p.nodes {
			t.Logf("the log of %s ends:\n%s", n.name, n.lastLog())
		}
	}
}

// resident is how much memory a process has that is its own.
func resident(pid int) (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if rest, is := strings.CutPrefix(line, "RssAnon:"); is {
			kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kb << 10, err
		}
	}
	return 0, errors.New("read memory of process: no RssAnon")
}

// users write through each manager, one after the other.
type users struct {
	cancel  context.CancelFunc
	done    sync.WaitGroup
	mu      sync.Mutex // guards the fields below
	writes  int
	failed  int
	last    atomic.Value
	wrote   time.Time
	longest time.Duration
}

func newUsers(ctx context.Context, t *testing.T, p *processes) *users {
	ctx, cancel := context.WithCancel(ctx)
	u := &users{cancel: cancel, wrote: time.Now()}
	for at, n := range p.nodes[:3] {
		api, err := connect(n.socket())
		if err != nil {
			t.Fatal(err)
		}
		u.done.Go(func() {
			defer api.Close()
			for i := 0; ctx.Err() == nil; i++ {
				_, err := api.ServiceCreate(ctx, benchSpec(fmt.Sprintf("user-%d-%d", at, i), 0), swarm.ServiceCreateOptions{})
				if ctx.Err() == nil {
					u.note(err)
				}
				time.Sleep(50 * time.Millisecond)
			}
		})
	}
	return u
}

func (u *users) note(err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if err != nil {
		u.failed++
		u.last.Store(err.Error())
		return
	}
	u.writes++
	u.longest, u.wrote = max(u.longest, time.Since(u.wrote)), time.Now()
}

func (u *users) stop() (writes, failed int, longest time.Duration) {
	u.cancel()
	u.done.Wait()
	return u.writes, u.failed, max(u.longest, time.Since(u.wrote))
}

// attack floods all ports at once.
func (to targets) attack(ctx context.Context) *attacked {
	ctx, cancel := context.WithTimeout(ctx, to.For)
	defer cancel()
	did := &attacked{}
	var all sync.WaitGroup
	each := func(many int, do func(i int)) {
		for i := range many {
			all.Go(func() {
				for ctx.Err() == nil {
					do(i)
				}
			})
		}
	}
	junk := make([]byte, 1400)
	rand.Read(junk)
	dial := func(i int, addr string) (net.Conn, error) {
		from := &net.Dialer{Timeout: 2 * time.Second, LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 254, byte(1+i%32))}}
		return from.DialContext(ctx, "tcp", addr)
	}
	for _, addr := range to.Addrs {
		control, gossip := addr+":2377", addr+":7946"
		each(64, func(i int) {
			conn, err := dial(i, control)
			if err != nil {
				return
			}
			defer conn.Close()
			shaken := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
			conn.SetDeadline(time.Now().Add(2 * time.Second))
			if shaken.HandshakeContext(ctx) == nil {
				did.Handshakes.Add(1)
				io.WriteString(shaken, "GET /v1/health HTTP/1.1\r\nHost: a\r\n\r\n")
			}
		})
		each(16, func(i int) { // Half a handshake, or none, and to stay.
			conn, err := dial(i, control)
			if err != nil {
				return
			}
			defer conn.Close()
			did.Connections.Add(1)
			conn.Write([]byte{22, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc}[:i%10])
			conn.SetReadDeadline(time.Now().Add(time.Second))
			io.Copy(io.Discard, conn)
		})
		each(4, func(i int) {
			conn, err := net.Dial("udp", gossip)
			if err != nil {
				return
			}
			defer conn.Close()
			for range 1000 {
				if _, err := conn.Write(junk[:100+i*400]); err == nil {
					did.Packets.Add(1)
				}
			}
		})
		each(16, func(i int) {
			conn, err := dial(i, gossip)
			if err != nil {
				return
			}
			defer conn.Close()
			did.Streams.Add(1)
			conn.SetDeadline(time.Now().Add(time.Second))
			conn.Write(append([]byte{8, 0, 0x20, 0, 0}, junk...))
			io.Copy(io.Discard, conn)
		})
	}
	for _, socket := range to.Sockets {
		paths := []string{"/services", "/tasks", "/nodes", "/events", "/services/user-0-0", "/swarm", "/info"}
		each(len(paths), func(i int) {
			conn, err := net.Dial("unix", strings.TrimPrefix(socket, "unix://"))
			if err != nil {
				return
			}
			defer conn.Close()
			did.Requests.Add(1)
			conn.SetDeadline(time.Now().Add(5 * time.Second))
			fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", paths[i])
			io.Copy(io.Discard, conn)
		})
		each(4, func(i int) {
			conn, err := net.Dial("unix", strings.TrimPrefix(socket, "unix://"))
			if err != nil {
				return
			}
			defer conn.Close()
			did.Requests.Add(1)
			conn.SetDeadline(time.Now().Add(5 * time.Second))
			fmt.Fprintf(conn, "POST /services/create HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n{\"Name\":\"")
			conn.Write(make([]byte, 1_000_000))
			io.Copy(io.Discard, conn)
		})
	}
	all.Wait()
	return did
}
