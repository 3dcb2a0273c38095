package clustertest

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"skep/cluster"
	"skep/cluster/ca"
	"skep/cluster/manager"
)

// What somebody who has a join token, or guesses at one, can do to a cluster.

// joiner asks a manager's control port to let nodes in, from one address, and forgets them.
type joiner struct {
	to   *Machine
	ip   string
	key  []byte
	csr  []byte
	asks func(token string) manager.JoinRequest
}

func newJoiner(t *testing.T, to *Machine, ip string) joiner {
	t.Helper()
	key, csr, err := ca.NewRequest(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return joiner{to: to, ip: ip, key: key, csr: csr, asks: func(token string) manager.JoinRequest {
		return manager.JoinRequest{Token: token, CSR: csr, Hostname: "false", Build: cluster.NewBuild("")}
	}}
}

// join asks once. The answer is nil unless the status is 200.
func (j joiner) join(ctx context.Context, token string) (int, *manager.Admission, error) {
	return j.post(ctx, "/v1/join", j.asks(token), nil)
}

// leave says that the node which was let in leaves for good.
func (j joiner) leave(ctx context.Context, as *manager.Admission) (int, error) {
	certificate, err := tls.X509KeyPair(as.Certificate, j.key)
	if err != nil {
		return 0, err
	}
	status, _, err := j.post(ctx, "/v1/leave", struct{}{}, &certificate)
	return status, err
}

func (j joiner) post(ctx context.Context, path string, body any, shows *tls.Certificate) (int, *manager.Admission, error) {
	data, err := cluster.Encode(body)
	if err != nil {
		return 0, nil, err
	}
	config := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{cluster.ProtocolHTTP}}
	if shows != nil {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return shows, nil }
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialTLSContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
		return manager.Dial(ctx, machineNetwork{j.to.cluster.wire, j.ip}, addr, config)
	}}}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+j.to.IP+":2377"+path, bytes.NewReader(data))
	if err != nil {
		return 0, nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		return response.StatusCode, nil, err
	}
	admission := new(manager.Admission)
	return response.StatusCode, admission, cluster.Decode(answer, admission)
}

// many does so many things, some at a time.
func many(count, atOnce int, do func(i int)) {
	var next atomic.Int64
	var done sync.WaitGroup
	for range atOnce {
		done.Go(func() {
			for i := int(next.Add(1)) - 1; i < count; i = int(next.Add(1)) - 1 {
				do(i)
			}
		})
	}
	done.Wait()
}

// Nodes that were let in and never come are few from each address, keep nobody else out,
// and are gone after a while.
func TestAttack_JoinsOfNodesThatNeverCome(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 1, Options{})
		leader := c.Leader()
		term := c.term()
		token := leader.Tokens(leader).Worker
		var let, refused atomic.Int64
		attack := newJoiner(t, leader, "127.0.66.1")
		flood := func(count int) {
			many(count, 20, func(int) {
				switch status, _, err := attack.join(t.Context(), token); {
				case err != nil:
				case status == http.StatusOK:
					let.Add(1)
				default:
					refused.Add(1)
				}
			})
		}
		flood(900)
		during := make(chan struct{})
		go func() { defer close(during); flood(300) }()
		began := time.Now()
		honest := c.add(5)
		honest.Join(leader, false)
		c.Eventually(5*time.Second, "an honest node is ready", func() error {
			node := leader.manager().Store().View().Node(nodeID(honest))
			if node == nil || node.Status.State != cluster.NodeReady {
				return fmt.Errorf("it is %+v", node)
			}
			return nil
		})
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("an honest join took %v", took)
		}
		leader.writes("meanwhile", time.Second)
		<-during
		t.Logf("%d let in, %d refused", let.Load(), refused.Load())
		if let.Load() > 1000 || refused.Load() == 0 {
			t.Errorf("of 1200 nodes that never came from one address %d were let in", let.Load())
		}
		if nodes := leader.manager().Store().View().NodeCount(); nodes > 5+1000 {
			t.Errorf("there are %d nodes", nodes)
		}
		// An hour later, for the database.
		leader.SetClock(time.Hour)
		c.Eventually(20*time.Second, "the nodes that are real are left", func() error {
			if nodes := leader.manager().Store().View().NodeCount(); nodes != 5 {
				return fmt.Errorf("there are %d nodes", nodes)
			}
			return nil
		})
		if now := c.term(); now > term+1 {
			t.Errorf("%d elections", now-term)
		}
		c.Same()
	})
}

// Whoever says wrong tokens is soon refused unheard. Others join meanwhile.
func TestAttack_WrongTokens(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 0, Options{})
		leader := c.Leader()
		token := leader.Tokens(leader).Worker
		wrong := token[:len(token)-25] + strings.Repeat("0", 25)
		attack := newJoiner(t, leader, "127.0.66.1")
		var heard, unheard atomic.Int64
		began := time.Now()
		many(300, 20, func(int) {
			switch status, _, err := attack.join(t.Context(), wrong); {
			case err != nil:
			case status == http.StatusForbidden:
				heard.Add(1)
			default:
				unheard.Add(1)
			}
		})
		t.Logf("%d were heard and %d weren't, in %v", heard.Load(), unheard.Load(), time.Since(began))
		if heard.Load() == 0 || heard.Load() > 200 || heard.Load()+unheard.Load() < 290 {
			t.Errorf("of 300 wrong tokens %d were heard, %d weren't", heard.Load(), unheard.Load())
		}
		if status, _, err := attack.join(t.Context(), token); status != http.StatusServiceUnavailable {
			t.Errorf("the right one in between: %d, %v", status, err)
		}
		c.add(4).Join(leader, false)
		time.Sleep(time.Minute)
		if status, _, err := attack.join(t.Context(), token); status != http.StatusOK {
			t.Errorf("the right one after a minute: %d, %v", status, err)
		}
		c.Same()
	})
}

// Nodes that join and leave without end are as few, and pruned nothing of them is left.
func TestAttack_JoinAndLeaveLoop(t *testing.T) {
	const loops, addresses = 400, 4
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 0, Options{SnapshotEntries: 50})
		leader := c.Leader()
		term := c.term()
		token := leader.Tokens(leader).Worker
		memory, disk := heap(), leader.onDisk()
		var joiners []joiner
		for i := range addresses {
			joiners = append(joiners, newJoiner(t, leader, fmt.Sprint("127.0.66.", i+1)))
		}
		many(loops, 8, func(i int) {
			j := joiners[i%addresses]
			status, admission, err := j.join(t.Context(), token)
			if err != nil || status != http.StatusOK {
				t.Errorf("join: %d, %v", status, err)
				return
			}
			if status, err := j.leave(t.Context(), admission); err != nil || status != http.StatusOK {
				t.Errorf("leave: %d, %v", status, err)
			}
		})
		leader.writes("meanwhile", time.Second)
		if nodes := leader.manager().Store().View().NodeCount(); nodes != 3+loops {
			t.Errorf("there are %d nodes", nodes)
		}
		var pruned cluster.PrunedNodes
		leader.Do(http.MethodPost, "/skep/v1/nodes/prune?until=0s", nil, &pruned)
		if nodes := leader.manager().Store().View().NodeCount(); nodes != 3 || len(pruned.Nodes) != loops {
			t.Errorf("%d were pruned, there are %d nodes", len(pruned.Nodes), nodes)
		}
		for i := range 120 { // So that a snapshot is taken of what is left.
			leader.Create(Spec(fmt.Sprint("s", i), "app:1", 0))
		}
		time.Sleep(time.Minute)
		grown, written := heap()-memory, leader.onDisk()-disk
		t.Logf("%d loops: %d kB of memory more for three managers, %d kB more on the disk of one", loops, grown>>10, written>>10)
		if grown > 16<<20 || written > 300<<10 {
			t.Errorf("%d kB of memory and %d kB on the disk are left of %d nodes", grown>>10, written>>10, loops)
		}
		if now := c.term(); now > term+1 {
			t.Errorf("%d elections", now-term)
		}
		c.Same()
	})
}

// heap is what all machines have in memory.
func heap() int64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}

// onDisk is what the machine's files take, without the log's: that one keeps the size it
// once had, which the number of entries bounds.
func (m *Machine) onDisk() (size int64) {
	_ = filepath.WalkDir(m.path(""), func(_ string, entry fs.DirEntry, err error) error {
		if err == nil {
			if info, err := entry.Info(); err == nil && entry.Name() != "raft.db" {
				size += info.Size()
			}
		}
		return nil
	})
	return size
}

// Thousands of connections that never finish their handshake cost memory for as many as
// there are places, and keep nobody away.
func TestAttack_OpenHandshakes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 1, Options{})
		leader := c.Leader()
		term := c.term()
		memory := heap()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var open []net.Conn
		// A TLS record that announces more than it brings.
		hello := []byte{22, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc}
		for i := range 5000 {
			conn, err := (machineNetwork{c.wire, fmt.Sprintf("127.0.66.%d", i%50+1)}).Dial(ctx, leader.IP+":2377")
			if err != nil {
				t.Fatal(err)
			}
			conn.SetWriteDeadline(time.Now().Add(time.Second))
			_, _ = conn.Write(hello[:i%(len(hello)+1)])
			open = append(open, conn)
		}
		began := time.Now()
		c.add(5).Join(leader, false)
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("a join took %v", took)
		}
		leader.writes("meanwhile", time.Second)
		held := 0
		for _, conn := range open {
			conn.SetReadDeadline(time.Now())
			if _, err := conn.Read(make([]byte, 1)); err != nil && strings.Contains(err.Error(), "timeout") {
				held++
			}
		}
		grown := heap() - memory
		t.Logf("%d of %d connections are held, %d kB of memory more", held, len(open), grown>>10)
		if held > 256 || grown > 64<<20 {
			t.Errorf("%d of %d connections are held, and %d kB of memory", held, len(open), grown>>10)
		}
		for _, conn := range open {
			conn.Close()
		}
		if now := c.term(); now > term+1 {
			t.Errorf("%d elections", now-term)
		}
		c.Same()
	})
}
