package clustertest

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
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
