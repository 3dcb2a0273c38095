package clustertest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"skep/cluster"
	"skep/cluster/node"
)

// daemon is one run of a machine's daemon.
type daemon struct {
	cancel context.CancelFunc
	// dying is closed when the daemon is as good as gone: from then on nothing it does
	// reaches its disk. ended is closed when it has returned.
	dying, ended chan struct{}
	once         sync.Once
}

func (d *daemon) is(state chan struct{}) bool {
	select {
	case <-state:
		return true
	default:
		return false
	}
}

// kill has the daemon do nothing more, and its code come to an end.
func (d *daemon) kill() {
	d.once.Do(func() { close(d.dying) })
	d.cancel()
}

// run runs a daemon until it ends, and notes why when nobody asked it to.
func (m *Machine) run(ctx context.Context, n *node.Node, d *daemon) {
	err := n.Run(ctx)
	m.mu.Lock()
	m.dead = true
	if err != nil && ctx.Err() == nil {
		m.failure = err
	}
	m.mu.Unlock()
	close(d.ended)
}

// fatal is what Config.Fatal does here: the daemon ends as in a crash. That is an
// error of the test unless its disk was harmed, or its version doesn't fit.
func (m *Machine) fatal(d *daemon, err error) {
	if d.is(d.dying) || d.is(d.ended) {
		return // It is known to be dead.
	}
	m.mu.Lock()
	m.failure = err
	expected := m.harmed || errors.Is(err, cluster.ErrVersion)
	m.mu.Unlock()
	if !expected {
		m.cluster.t.Errorf("%s stopped at once: %v", m.Name, err)
	}
	m.cluster.log.Debug("stop at once", "host", m.Name, "err", err)
	m.cluster.wire.kill(m.IP)
	d.kill()
	var fault *diskFault
	if errors.As(err, &fault) {
		fault.end()
	}
}

// settle waits for the end of a daemon that is as good as gone: to come to its end takes
// its code some seconds.
func (m *Machine) settle() {
	if m.daemon.is(m.daemon.dying) {
		<-m.daemon.ended
	}
}

// Failure is why the machine's daemon ended by itself, the last time it did; nil
// if it never did.
func (m *Machine) Failure() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.failure
}

// diskFault is what a write fails with.
type diskFault struct {
	what string
	err  error
}

func (f *diskFault) Error() string { return f.err.Error() }
func (f *diskFault) Unwrap() error { return f.err }

// end ends the goroutine that wrote a term: raft panics when that fails, and here
// the process goes on.
func (f *diskFault) end() {
	if f.what == "write term" {
		runtime.Goexit()
	}
}

var errDead = errors.New("the daemon is dead")

// write is the machine's disk: all that a daemon writes goes through it, but for its
// key file and the content of snapshots.
func (m *Machine) write(d *daemon, what string, write func() error) error {
	for {
		m.mu.Lock()
		hung, fault, slow := m.hung, m.fault, m.slow
		m.mu.Unlock()
		if d.is(d.dying) && what == "write file" {
			return nil // Nobody is told of it, and those who would try again needn't.
		}
		if d.is(d.dying) {
			dead := &diskFault{what, errDead}
			dead.end()
			return dead
		}
		if hung != nil {
			select {
			case <-hung:
			case <-d.dying:
			}
			continue
		}
		if slow > 0 {
			time.Sleep(slow)
		}
		if errors.Is(fault, syscall.EIO) {
			_ = write() // What was written may be on the disk though the sync failed.
		}
		if fault != nil {
			return &diskFault{what, fault}
		}
		return write()
	}
}

// FillDisk makes the machine's disk full: each write fails, until MendDisk.
func (m *Machine) FillDisk() {
	m.harm(&os.PathError{Op: "write", Path: m.path("raft/raft.db"), Err: syscall.ENOSPC}, nil)
}

// FailDisk makes each sync of the machine's disk fail, until MendDisk. What was
// written may be there all the same.
func (m *Machine) FailDisk() { m.harm(syscall.EIO, nil) }

// HangDisk has no write to the machine's disk end for so long, or until MendDisk
// when that is 0.
func (m *Machine) HangDisk(limit time.Duration) {
	hung := make(chan struct{})
	m.harm(nil, hung)
	if limit == 0 {
		return
	}
	time.AfterFunc(limit, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.hung == hung {
			m.hung = nil
			close(hung)
		}
	})
}

// SlowDisk has each write to the machine's disk take so much longer.
func (m *Machine) SlowDisk(by time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.slow = by
}

// MendDisk makes the machine's disk take writes again. A daemon that died of it
// needs a Restart.
func (m *Machine) MendDisk() { m.harm(nil, nil) }

func (m *Machine) harm(fault error, hung chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.hung != nil {
		close(m.hung)
	}
	m.harmed, m.fault, m.hung = true, fault, hung
}

// path is where the machine has a file.
func (m *Machine) path(name string) string { return filepath.Join(m.cluster.dir, m.Name, name) }

// FlipBit flips a bit in one of the machine's files whose name fits the pattern, such
// as "raft/raft.db", "raft/snapshots/*/state.bin", "raft/snapshots/*/meta.json",
// "*.sealed" or "identity.key". The daemon must be off. It says which bit it was, or ""
// when there is no such file.
func (m *Machine) FlipBit(random *rand.Rand, pattern string) string {
	return m.spoil(random, pattern, func(data []byte) ([]byte, string) {
		at, bit := random.IntN(len(data)), random.IntN(8)
		data[at] ^= 1 << bit
		return data, fmt.Sprintf("bit %d of byte %d of %d", bit, at, len(data))
	})
}

// CutFile is as FlipBit, but cuts the file's end off.
func (m *Machine) CutFile(random *rand.Rand, pattern string) string {
	return m.spoil(random, pattern, func(data []byte) ([]byte, string) {
		at := random.IntN(len(data))
		return data[:at], fmt.Sprintf("all from byte %d of %d on", at, len(data))
	})
}

func (m *Machine) spoil(random *rand.Rand, pattern string, spoil func([]byte) ([]byte, string)) string {
	m.cluster.t.Helper()
	files, err := filepath.Glob(m.path(pattern))
	if err != nil || !m.off() {
		m.cluster.t.Fatalf("spoil %s of %s, which must be off: %v", pattern, m.Name, err)
	}
	if len(files) == 0 {
		return ""
	}
	file := files[random.IntN(len(files))]
	data, err := os.ReadFile(file)
	if err != nil {
		m.cluster.t.Fatal(err)
	}
	if len(data) == 0 {
		return ""
	}
	data, what := spoil(data)
	if err := os.WriteFile(file, data, 0o600); err != nil {
		m.cluster.t.Fatal(err)
	}
	m.mu.Lock()
	m.harmed = true
	m.mu.Unlock()
	name, _ := filepath.Rel(m.path(""), file)
	return what + " of " + name
}
