package store

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"skep/store/seal"
)

// hanging runs a write of so many bytes until the test ends it.
func hanging(t *testing.T, dog *watchdog, size int) (end func()) {
	release, done := make(chan struct{}), make(chan struct{})
	dog.run = func(_ string, write func() error) error { <-release; return write() }
	go func() {
		defer close(done)
		_ = dog.time("write log", size, func() error { return nil })
	}()
	return func() { close(release); <-done }
}

// The limit is one for the disk: a large write may take longer.
func TestWatchdog_ALargeWriteMayTakeLonger(t *testing.T) {
	const limit = 2 * time.Second
	for size, allowed := range map[int]time.Duration{0: limit, 512 << 10: limit + time.Second/2, 8 << 20: limit + 8*time.Second} {
		synctest.Test(t, func(t *testing.T) {
			var barks atomic.Int32
			dog := &watchdog{dir: "dir", limit: limit, log: quiet, fatal: func(error) { barks.Add(1) }}
			end := hanging(t, dog, size)
			time.Sleep(allowed - time.Millisecond)
			synctest.Wait()
			if barks.Load() != 0 {
				t.Errorf("%d bytes: barked before %v", size, allowed)
			}
			time.Sleep(2 * time.Millisecond)
			synctest.Wait()
			if barks.Load() != 1 {
				t.Errorf("%d bytes: barked %d times after %v", size, barks.Load(), allowed)
			}
			end()
		})
	}
}

// Want of processors isn't the disk's fault, however long it lasts.
func TestWatchdog_CountsOnlyWaitingForTheDisk(t *testing.T) {
	const limit = 2 * time.Second
	synctest.Test(t, func(t *testing.T) {
		var waits atomic.Bool
		var barks atomic.Int32
		dog := &watchdog{dir: "dir", limit: limit, log: quiet, fatal: func(error) { barks.Add(1) }, waits: func(int) bool { return waits.Load() }}
		done := make(chan struct{})
		go dog.count("write log", 0, 1, done)
		time.Sleep(time.Minute)
		waits.Store(true)
		time.Sleep(limit / 2)
		waits.Store(false)
		time.Sleep(time.Minute)
		synctest.Wait()
		if barks.Load() != 0 {
			t.Error("barked though the thread had no processor")
		}
		waits.Store(true)
		time.Sleep(limit)
		synctest.Wait()
		if barks.Load() != 1 {
			t.Errorf("barked %d times at a disk that hangs", barks.Load())
		}
		close(done)
	})
}

// A process that nobody can replace waits, and says so; it ends when others can go on,
// unless its disk is back at the same time.
func TestWatchdog_WaitsWhenNobodyCanGoOn(t *testing.T) {
	const limit = 2 * time.Second
	synctest.Test(t, func(t *testing.T) {
		var others atomic.Bool
		var barks atomic.Int32
		dog := &watchdog{dir: "dir", limit: limit, log: quiet, fatal: func(error) { barks.Add(1) }, dispensable: others.Load}
		end := hanging(t, dog, 0)
		time.Sleep(time.Minute)
		synctest.Wait()
		if hung := dog.hung(); barks.Load() != 0 || hung < 59*time.Second || hung > time.Minute {
			t.Errorf("barked %d times; it hangs for %v", barks.Load(), hung)
		}
		others.Store(true)
		end()
		time.Sleep(time.Minute)
		synctest.Wait()
		if barks.Load() != 0 || dog.hung() != 0 {
			t.Errorf("barked %d times at a disk that is back; it hangs for %v", barks.Load(), dog.hung())
		}
		others.Store(false)
		end = hanging(t, dog, 0)
		time.Sleep(time.Minute)
		others.Store(true)
		time.Sleep(limit)
		synctest.Wait()
		if barks.Load() != 1 {
			t.Errorf("barked %d times though others can go on", barks.Load())
		}
		end()
	})
}

// The kernel tells a thread that waits for a file from one that has no processor, and from
// one that waits for another thread.
func TestThreadWaits(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux tells")
	}
	var pipe [2]int
	if err := syscall.Pipe(pipe[:]); err != nil {
		t.Fatal(err)
	}
	var spin atomic.Bool
	spin.Store(true)
	wait := make(chan struct{})
	for name, test := range map[string]struct {
		act, end func()
		want     bool
	}{
		"a read": {func() { _, _ = syscall.Read(pipe[0], make([]byte, 1)) }, func() { _, _ = syscall.Write(pipe[1], []byte{1}) }, true},
		"a loop": {func() {
			for spin.Load() {
			}
		}, func() { spin.Store(false) }, false},
		"another thread": {func() { <-wait }, func() { close(wait) }, false},
	} {
		thread, done := make(chan int), make(chan struct{})
		go func() {
			defer close(done)
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			thread <- threadID()
			test.act()
		}()
		id := <-thread
		right := 0
		for range 50 {
			time.Sleep(2 * time.Millisecond)
			if threadWaits(id) == test.want {
				right++
			}
		}
		if right < 45 {
			t.Errorf("%s: right %d times of 50", name, right)
		}
		test.end()
		<-done
	}
}

// What a follower that was away gets is written, and removed, in small parts, without ever
// leaving a gap.
func TestWatchedLog_WritesInParts(t *testing.T) {
	inner := raft.NewInmemStore()
	var parts []string
	dog := &watchdog{dir: "dir", limit: time.Minute, log: quiet, fatal: func(err error) { t.Error(err) }}
	log := &watchedLog{Log: seal.NewLog(inner, seal.NewRing(seal.Key{}), "c1"), dog: dog}
	dog.run = func(_ string, write func() error) error {
		err := write()
		first, _ := inner.FirstIndex()
		last, _ := inner.LastIndex()
		parts = append(parts, fmt.Sprintf("%d-%d", first, last))
		var entry raft.Log
		for i := first; i <= last && first > 0; i++ {
			if err := inner.GetLog(i, &entry); err != nil {
				t.Errorf("after %s entry %d is missing", parts[len(parts)-1], i)
			}
		}
		return err
	}
	var entries []*raft.Log
	for i := range 10 {
		size := 300 << 10
		if i == 6 {
			size = 3 << 20
		}
		entries = append(entries, &raft.Log{Index: uint64(i + 1), Term: 1, Data: make([]byte, size)})
	}
	if err := log.StoreLogs(entries); err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(parts, " "), "1-3 1-6 1-7 1-10"; got != want {
		t.Errorf("written as %s; want %s", got, want)
	}
	parts = nil
	if err := log.StoreLogs(logEntries(11, 300)); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		low, high uint64
		want      string
	}{
		{1, 100, "65-300 101-300"},
		{171, 300, "101-236 101-172 101-170"},
		{101, 170, "101-106 0-0"},
	} {
		parts = nil
		if err := log.DeleteRange(test.low, test.high); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(parts, " "); got != test.want {
			t.Errorf("%d to %d removed as %s; want %s", test.low, test.high, got, test.want)
		}
	}
	if err := log.DeleteRange(1, 10); err != nil || !slices.Equal(parts[len(parts)-1:], []string{"0-0"}) {
		t.Errorf("of an empty log: %v, %v", err, parts)
	}
}
