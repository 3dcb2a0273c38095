package peers

import (
	"context"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// pipes dials connections whose far ends it keeps.
type pipes struct {
	mu  sync.Mutex
	far []net.Conn
}

func (p *pipes) dial(context.Context, string) (net.Conn, error) {
	near, far := net.Pipe()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.far = append(p.far, far)
	return near, nil
}

func TestWarmConns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pipes{}
		s := newWarmConns(p.dial)
		if s.take("a") != nil {
			t.Fatal("took a connection that nobody made")
		}
		for range 5 {
			s.fill(t.Context(), []string{"a"})
			synctest.Wait()
		}
		if len(p.far) != warmForRaft {
			t.Fatalf("%d connections lie ready; want %d", len(p.far), warmForRaft)
		}
		// One that ended is none any more.
		p.far[1].Close()
		synctest.Wait()
		conn := s.take("a")
		if conn == nil || s.take("a") != nil {
			t.Fatal("want the one connection that is left")
		}
		go func() { _, _ = p.far[0].Write([]byte("x")) }()
		if n, err := conn.Read(make([]byte, 2)); n != 1 || err != nil {
			t.Fatalf("what was taken reads %d bytes: %v", n, err)
		}
		// Those to somebody who is gone are closed.
		s.fill(t.Context(), []string{"a", "b"})
		synctest.Wait()
		s.fill(t.Context(), []string{"b"})
		synctest.Wait()
		if s.take("a") != nil || s.take("b") == nil {
			t.Fatal("want connections to those that are named, and no others")
		}
		s.fill(t.Context(), []string{"b"})
		synctest.Wait()
		s.close()
		synctest.Wait()
		s.fill(t.Context(), []string{"b"})
		synctest.Wait()
		if s.take("b") != nil {
			t.Fatal("took a connection of what is closed")
		}
	})
}

// farHandshake is what a handshake takes with a manager that is 360 ms away.
const farHandshake = 720 * time.Millisecond

// A manager that prewarms has so many connections after it, and uses them again, however
// far the other one is.
func TestPrewarm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conns := newHandoff(&net.TCPAddr{})
		var dials, asked atomic.Int32
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			asked.Add(1)
		})}
		go func() { _ = server.Serve(conns) }()
		client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64, DialTLSContext: func(_ context.Context, _, addr string) (net.Conn, error) {
			if addr == "gone:1" {
				return nil, syscall.ECONNREFUSED
			}
			time.Sleep(farHandshake)
			dials.Add(1)
			near, far := net.Pipe()
			go conns.deliver(far)
			return near, nil
		}}}
		warm := &Transport{config: Config{Ask: func(ctx context.Context, addr string) error {
			request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+addr, nil)
			if err != nil {
				return err
			}
			response, err := client.Do(request)
			if err != nil {
				return err
			}
			return response.Body.Close()
		}}}
		for round := range int32(3) {
			began := time.Now()
			warm.prewarm(t.Context(), []string{"gone:1", "a:1"})
			took := time.Since(began)
			synctest.Wait()
			if dials.Load() != warmForRequests || asked.Load() != warmForRequests*(round+1) {
				t.Fatalf("%d connections were made, and %d questions asked", dials.Load(), asked.Load())
			}
			if fresh := round == 0; fresh != (took >= warmForRequests*prewarmPause) {
				t.Errorf("round %d took %v", round, took)
			}
		}
		client.CloseIdleConnections()
		server.Close()
		synctest.Wait()
	})
}
