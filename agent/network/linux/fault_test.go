package linux_test

import (
	"context"
	"io"
	"log/slog"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"skep/agent/network"
)

// run keeps the kernel as two wants until the test ends. said lists what was told of problems, and right waits
// until a problem was told, and then that all is as it should be.
func run(t *testing.T, plane network.Plane) (said func() []string, right func(limit time.Duration)) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	var mu sync.Mutex // guards problems
	var problems []string
	w := two()
	go func() {
		defer close(ended)
		_ = network.Run(ctx, network.Config{
			Plane: plane, Wanted: func() (*network.Wanted, bool) { return w, true }, Changed: make(chan struct{}), Log: slog.New(slog.DiscardHandler),
			Problem: func(reason string) { mu.Lock(); defer mu.Unlock(); problems = append(problems, reason) },
		})
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
		settle(t, context.Background(), kernel(t), &network.Wanted{Cluster: "c"})
	})
	said = func() []string { mu.Lock(); defer mu.Unlock(); return slices.Clone(problems) }
	right = func(limit time.Duration) {
		t.Helper()
		for deadline := time.Now().Add(limit); ; time.Sleep(5 * time.Millisecond) {
			existing, err := kernel(t).Dump(ctx, "c")
			told := said()
			if err == nil && len(network.Plan(network.Desired(w, existing), existing.Objects, true)) == 0 && len(told) > 0 && told[len(told)-1] == "" {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("after %v it isn't as it should be: %v, it told %q", limit, err, told)
			}
		}
	}
	return said, right
}

// TestPlane_FaultsOfTheKernel has the kernel refuse steps, of netlink and of nftables, by each of several
// errors, or carry them out and say that it didn't: that is said, tried again after pauses, and ends as wanted.
func TestPlane_FaultsOfTheKernel(t *testing.T) {
	for _, errno := range []syscall.Errno{unix.EEXIST, unix.ENOBUFS, unix.EBUSY, unix.EPERM, unix.ENOSPC, unix.EINVAL, unix.EMSGSIZE} {
		for _, done := range []bool{false, true} {
			name := errno.Error() + ", and it isn't done"
			if done {
				name = errno.Error() + ", though it is done"
			}
			t.Run(name, func(t *testing.T) {
				plane := kernel(t)
				var mu sync.Mutex // guards tries
				tries := 0
				plane.SetFault(func(_ []network.Step, do func() error) error {
					mu.Lock()
					defer mu.Unlock()
					if tries++; tries > 40 || tries%3 == 0 {
						return do()
					}
					if done {
						_ = do()
					}
					return errno
				})
				said, right := run(t, plane)
				right(20 * time.Second)
				told := said()
				if len(told) == 0 || !strings.Contains(told[0], errno.Error()) || strings.Count(told[0], "\n") > 5 {
					t.Errorf("it told %q", told)
				}
			})
		}
	}
}

// TestPlane_ATableThatAnotherOwns has another program own a table of skep's name, which nobody else may change:
// links are there all the same, the reason is said, few tries are made, and the table is when it ends.
func TestPlane_ATableThatAnotherOwns(t *testing.T) {
	plane := kernel(t)
	owner := exec.Command("nft", "-i") // Its table goes when it ends.
	in, err := owner.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := owner.Start(); err != nil {
		t.Skip("needs nft: ", err)
	}
	end := sync.OnceFunc(func() {
		_ = in.Close()
		_ = owner.Wait()
	})
	defer end()
	if _, err := io.WriteString(in, "add table ip skep { flags owner; }\n"); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		out, err := exec.Command("nft", "list", "table", "ip", "skep").CombinedOutput()
		if err == nil && strings.Contains(string(out), "owner") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("no table with an owner: %v\n%s", err, out)
		}
	}
	var mu sync.Mutex // guards tries
	tries := 0
	plane.SetFault(func(_ []network.Step, do func() error) error {
		mu.Lock()
		defer mu.Unlock()
		tries++
		return do()
	})
	said, right := run(t, plane)
	time.Sleep(3 * time.Second)
	existing, err := plane.Dump(context.Background(), "c")
	if err != nil {
		t.Fatal(err)
	}
	there := keys(existing.Objects)
	for _, o := range network.Desired(two(), network.Existing{}) {
		switch o.(type) {
		case network.Table, network.Chain, network.Element, network.Hairpin:
		default:
			if !slices.Contains(there, o.String()) {
				t.Errorf("without the table there is no %s", o)
			}
		}
	}
	if told := said(); len(told) == 0 || !strings.Contains(told[0], "table ip") || !strings.Contains(told[0], unix.EPERM.Error()) {
		t.Errorf("it told %q", told)
	}
	mu.Lock()
	// Some 25 links and routes at first; then the table again and again.
	if tries > 120 {
		t.Errorf("%d tries in 3 seconds", tries)
	}
	mu.Unlock()
	end()
	right(20 * time.Second)
}
