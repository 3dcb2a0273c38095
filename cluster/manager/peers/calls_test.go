package peers

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"skep/cluster"
)

// callTo gives connections to one that answers calls by handle, and counts the dials.
func callTo(t *testing.T, handle func(kind byte, content []byte, answer func([]byte))) (conns *callConns, dials *atomic.Int32) {
	dials = new(atomic.Int32)
	serving, stop := context.WithCancel(context.Background())
	server := &Transport{}
	conns = newCallConns(func(context.Context, string) (net.Conn, error) {
		dials.Add(1)
		near, far := net.Pipe()
		go func() { _ = server.ServeCalls(serving, far, "m1", handle) }()
		return near, nil
	}, time.Now)
	t.Cleanup(func() { conns.close(); stop() })
	return conns, dials
}

func TestCalls_ShareOneConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conns, dials := callTo(t, func(kind byte, content []byte, answer func([]byte)) {
			go func() {
				time.Sleep(time.Duration(len(content)%7) * time.Millisecond)
				answer(append([]byte{kind}, content...))
			}()
		})
		var callers sync.WaitGroup
		for i := range 3 * maxCalls {
			callers.Go(func() {
				content := []byte(strings.Repeat("x", i%100) + fmt.Sprint(i))
				got, err := conns.call(t.Context(), "a", 5, content)
				if err != nil || !bytes.Equal(got, append([]byte{5}, content...)) {
					t.Errorf("call %d: %q, %v", i, got, err)
				}
			})
		}
		callers.Wait()
		if n := dials.Load(); n != 1 {
			t.Errorf("%d connections for calls to one manager", n)
		}
	})
}

// A call without an answer in time gives the connection up, and with it the others that wait; the next one is made anew.
func TestCalls_AConnectionThatSaysNothingIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var silent atomic.Bool
		silent.Store(true)
		conns, dials := callTo(t, func(_ byte, content []byte, answer func([]byte)) {
			if !silent.Load() {
				answer(content)
			}
		})
		other := make(chan error, 1)
		go func() {
			_, err := conns.call(t.Context(), "a", 1, nil)
			other <- err
		}()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		for what, err := range map[string]error{"in time": func() error { _, err := conns.call(ctx, "a", 1, nil); return err }(), "beside it": <-other} {
			if !errors.Is(err, cluster.ErrUnavailable) || errors.Is(err, cluster.ErrUnreachable) {
				t.Errorf("the call that had to be answered %s: %v", what, err)
			}
		}
		silent.Store(false)
		if got, err := conns.call(t.Context(), "a", 1, []byte("again")); string(got) != "again" || err != nil || dials.Load() != 2 {
			t.Errorf("%q, %v after %d dials", got, err, dials.Load())
		}
		conns.keep(nil)
		if _, err := conns.call(t.Context(), "a", 1, nil); err != nil || dials.Load() != 3 {
			t.Errorf("%v after %d dials", err, dials.Load())
		}
		conns.close()
		if _, err := conns.call(t.Context(), "a", 1, nil); !errors.Is(err, cluster.ErrUnreachable) {
			t.Errorf("a call after the end: %v", err)
		}
	})
}

func TestCalls_WhoCantBeDialedIsLeftAloneForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dials := 0
		conns := newCallConns(func(context.Context, string) (net.Conn, error) {
			dials++
			return nil, cluster.ErrUnreachable
		}, time.Now)
		for range 10 {
			if _, err := conns.call(t.Context(), "a", 1, nil); !errors.Is(err, cluster.ErrUnreachable) {
				t.Fatal(err)
			}
		}
		time.Sleep(dialPause)
		_, _ = conns.call(t.Context(), "a", 1, nil)
		if dials != 2 {
			t.Errorf("%d dials; want one, and one after the pause", dials)
		}
	})
}

// What isn't a message ends the connection, and nothing is kept for it.
func TestServeCalls_EndsWithWhatIsNoMessage(t *testing.T) {
	for name, size := range map[string]uint32{"too large": callHead + MaxCall + 1, "too small": callHead - 1} {
		t.Run(name, func(t *testing.T) {
			near, far := net.Pipe()
			ended := make(chan error, 1)
			go func() {
				ended <- (&Transport{}).ServeCalls(t.Context(), far, "m1", func(byte, []byte, func([]byte)) { t.Error("it was taken") })
			}()
			_ = near.SetDeadline(time.Now().Add(5 * time.Second))
			if _, err := near.Write(append(binary.BigEndian.AppendUint32(nil, size), make([]byte, callHead)...)); err != nil {
				t.Fatal(err)
			}
			if err := <-ended; !errors.Is(err, cluster.ErrInvalid) {
				t.Error(err)
			}
		})
	}
}

// A connection of one who is no manager any more is cut.
func TestServeCalls_EndsWithTheManager(t *testing.T) {
	near, far := net.Pipe()
	defer near.Close()
	transport, ended := &Transport{}, make(chan error, 1)
	answered := make(chan bool, 1)
	go func() {
		ended <- transport.ServeCalls(t.Context(), far, "m1", func(_ byte, _ []byte, answer func([]byte)) { answered <- true; answer(nil) })
	}()
	newCallWriter(near).send(1, 1, nil)
	<-answered
	transport.callers.closeExcept(func(from string) bool { return from != "m1" })
	if err := <-ended; err == nil {
		t.Error("it didn't end")
	}
}
