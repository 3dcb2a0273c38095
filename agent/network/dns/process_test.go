package dns_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"skep/agent/network/dns"
	"skep/agent/network/helper"
)

// What this program is when it was started by a test: a process of names, or the daemon's part
// that keeps one.
const (
	envRole  = "SKEP_TEST_NAMES_ROLE"
	envFile  = "SKEP_TEST_NAMES_FILE"
	envBuild = "SKEP_TEST_NAMES_BUILD"
)

func TestMain(m *testing.M) {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if os.Getenv(envRole) == "" {
		os.Exit(m.Run())
	}
	ctx, _ := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	switch os.Getenv(envRole) {
	case "process":
		err := dns.Process(ctx, dns.ProcessConfig{
			File: os.Getenv(envFile), Build: os.Getenv(envBuild), Now: time.Now, Random: rand.New(rand.NewPCG(1, 2)), Log: log,
		})
		if err != nil {
			log.Error("process", "err", err)
			os.Exit(1)
		}
		os.Exit(0)
	case "keeper":
		build := os.Getenv(envBuild)
		keeper := helper.Keeper{Name: "names", File: os.Getenv(envFile), Build: build, Command: func() *exec.Cmd { return self("process", os.Getenv(envFile), build) }, Now: time.Now, Log: log}
		keeper.Run(ctx)
	}
}

// self is a command that runs this program in a role; what it logs is beside the file.
func self(role, file, build string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), envRole+"="+role, envFile+"="+file, envBuild+"="+build)
	log, err := os.OpenFile(file+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err == nil {
		cmd.Stderr = log
	}
	return cmd
}

// service is a file of names, an address at which it is answered from, and whoever does so.
type service struct {
	t    testing.TB
	file string
	at   string
}

func newService(t testing.TB) *service {
	packets, conns := listen(t)
	s := &service{t: t, file: filepath.Join(t.TempDir(), "names"), at: packets.LocalAddr().String()}
	_, _ = packets.Close(), conns.Close()
	s.write(nil)
	t.Cleanup(func() {
		if t.Failed() {
			log, _ := os.ReadFile(s.file + ".log")
			t.Logf("%s", log)
		}
		for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			pid, _, err := dns.WhoIs(s.file)
			if err != nil {
				return
			}
			_ = syscall.Kill(pid, syscall.SIGTERM)
		}
		t.Error("the process of names doesn't end")
	})
	return s
}

func (s *service) write(change func(*dns.Names)) {
	s.t.Helper()
	n := here()
	n.Listen = []dns.Listen{{Addr: netip.MustParseAddrPort(s.at)}}
	if change != nil {
		change(n)
	}
	if err := dns.WriteFile(s.file, n); err != nil {
		s.t.Fatal(err)
	}
}

// run starts this program in a role; the test's end ends it.
func (s *service) run(role, build string) *exec.Cmd {
	s.t.Helper()
	cmd := self(role, s.file, build)
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _, _ = cmd.Process.Kill(), cmd.Wait() })
	return cmd
}

// waitFor waits until the process is one of the build, and answers; it returns its ID.
func (s *service) waitFor(build string) int {
	s.t.Helper()
	return s.waitForAnother(build, 0)
}

func (s *service) waitForAnother(build string, before int) int {
	s.t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		pid, is, err := dns.WhoIs(s.file)
		if err != nil || is != build || pid == before {
			continue
		}
		if _, err := askServer("udp", s.at, "web."); err == nil {
			return pid
		}
	}
	s.t.Fatalf("no process of build %s answers", build)
	return 0
}

// load asks 500 times a second until stop, by UDP and now and then by TCP, and never twice.
func (s *service) load(every time.Duration) (stop func() (asked int, failed []string)) {
	var mu sync.Mutex
	var failed []string
	asked := 0
	done := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			case <-tick.C:
			}
			network := "udp"
			if i%10 == 0 {
				network = "tcp"
			}
			running.Go(func() {
				reply, err := askServer(network, s.at, "web.")
				mu.Lock()
				defer mu.Unlock()
				asked++
				if got := told(reply, nil); err != nil || got != "NOERROR 10.0.1.2" {
					failed = append(failed, fmt.Sprintf("%s by %s: %s, %v", time.Now().Format(time.StampMilli), network, got, err))
				}
			})
		}
	})
	return func() (int, []string) { close(done); running.Wait(); return asked, failed }
}

// TestProcess_OutlivesTheDaemon kills the daemon's part, and starts it again, a hundred times: no question fails.
func TestProcess_OutlivesTheDaemon(t *testing.T) {
	s := newService(t)
	keeper := s.run("keeper", "1")
	pid := s.waitFor("1")
	stop := s.load(2 * time.Millisecond)
	for range 100 {
		time.Sleep(20 * time.Millisecond)
		_, _ = keeper.Process.Kill(), keeper.Wait()
		keeper = s.run("keeper", "1")
	}
	asked, failed := stop()
	if len(failed) > 0 || asked < 500 {
		t.Errorf("%d of %d questions failed: %s", len(failed), asked, strings.Join(failed[:min(len(failed), 5)], "; "))
	}
	if now := s.waitFor("1"); now != pid {
		t.Errorf("process %d answers, want the first one, %d", now, pid)
	}
	t.Log(asked, "questions")
}

// TestProcess_AnotherVersionLosesNoQuestion has one version after the other take over.
func TestProcess_AnotherVersionLosesNoQuestion(t *testing.T) {
	s := newService(t)
	s.run("process", "0")
	pid := s.waitFor("0")
	stop := s.load(2 * time.Millisecond)
	for i := 1; i <= 10; i++ {
		keeper := s.run("keeper", strconv.Itoa(i))
		now := s.waitFor(strconv.Itoa(i))
		if now == pid {
			t.Errorf("version %d is the same process as the one before", i)
		}
		pid = now
		time.Sleep(20 * time.Millisecond) // It is asked for a while, however soon it was there.
		_, _ = keeper.Process.Kill(), keeper.Wait()
	}
	asked, failed := stop()
	if len(failed) > 0 || asked < 100 {
		t.Errorf("%d of %d questions failed: %s", len(failed), asked, strings.Join(failed[:min(len(failed), 5)], "; "))
	}
	t.Log(asked, "questions")
}

// TestProcess_IsStartedAgain kills the process, and stops one so that it hangs: another one answers soon.
func TestProcess_IsStartedAgain(t *testing.T) {
	s := newService(t)
	s.run("keeper", "1")
	pid := s.waitFor("1")
	for name, hurt := range map[string]struct {
		syscall.Signal
		most time.Duration
	}{"killed": {syscall.SIGKILL, 5 * time.Second}, "hung": {syscall.SIGSTOP, 18 * time.Second}} {
		began := time.Now()
		if err := syscall.Kill(pid, hurt.Signal); err != nil {
			t.Fatal(err)
		}
		pid = s.waitForAnother("1", pid)
		if took := time.Since(began); took > hurt.most {
			t.Errorf("%s: another answers after %v", name, took)
		} else {
			t.Log(name, took)
		}
	}
}

// TestProcess_HeedsTheFile changes names, spoils the file, and sees that nothing wrong is ever answered.
func TestProcess_HeedsTheFile(t *testing.T) {
	s := newService(t)
	s.write(func(n *dns.Names) { n.Complete = false })
	s.run("process", "1")
	check := func(want string) {
		t.Helper()
		var got string
		for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
			reply, err := askServer("udp", s.at, "web.")
			if got = told(reply, nil); err == nil && got == want {
				return
			}
		}
		t.Fatalf("%s, want %s", got, want)
	}
	check("SERVFAIL")
	s.write(nil)
	check("NOERROR 10.0.1.2")
	began := time.Now()
	const changes = 20
	for i := range changes {
		s.write(func(n *dns.Names) {
			n.Networks["front"].Names["web"] = dns.Record{Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 1, byte(i + 100)})}}
		})
		check(fmt.Sprint("NOERROR 10.0.1.", i+100))
	}
	if took := time.Since(began) / changes; took > 900*time.Millisecond {
		t.Errorf("a change is answered after %v: it isn't noticed before it is looked for", took)
	} else {
		t.Log("a change is answered after", took)
	}
	if err := os.WriteFile(s.file+".x", []byte("half a file"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(s.file+".x", s.file); err != nil {
		t.Fatal(err)
	}
	time.Sleep(100 * time.Millisecond)
	check("NOERROR 10.0.1.119")
	// Another address, and the first no more.
	packets, conns := listen(t)
	other := packets.LocalAddr().String()
	_, _ = packets.Close(), conns.Close()
	first := s.at
	s.at = other
	s.write(nil)
	check("NOERROR 10.0.1.2")
	// It leaves the first when it answers at the other.
	for end := time.Now().Add(2 * time.Second); ; time.Sleep(time.Millisecond) {
		conn, err := net.DialTimeout("tcp", first, time.Second)
		if err != nil {
			break
		}
		_ = conn.Close()
		if time.Now().After(end) {
			t.Fatal("it still listens where it shouldn't")
		}
	}
}
