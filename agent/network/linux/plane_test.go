package linux_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"pgregory.net/rapid"

	"skep/agent/network"
	"skep/agent/network/linux"
	"skep/agent/network/networktest"
)

// inNamespace is set in the process that has a network namespace of its own.
const inNamespace = "SKEP_TEST_NETNS"

// TestMain runs the tests in a network namespace of their own, with a kernel's objects that
// are nobody else's.
func TestMain(m *testing.M) {
	if as := os.Getenv(role); as != "" {
		if err := play(as); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if os.Getuid() != 0 {
		os.Exit(m.Run())
	}
	if os.Getenv(inNamespace) != "" {
		// Namespaces have names in a folder, which is this process's alone.
		for _, step := range []func() error{
			func() error { return syscall.Mount("", "/", "", syscall.MS_PRIVATE|syscall.MS_REC, "") },
			func() error { return os.MkdirAll("/run/netns", 0o755) },
			func() error { return syscall.Mount("netns", "/run/netns", "tmpfs", 0, "") },
		} {
			if err := step(); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
		}
		os.Exit(m.Run())
	}
	self := exec.Command("/proc/self/exe", os.Args[1:]...)
	self.Env = append(os.Environ(), inNamespace+"=1")
	self.Stdin, self.Stdout, self.Stderr = os.Stdin, os.Stdout, os.Stderr
	self.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS}
	if err := self.Run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func kernel(t *testing.T) *linux.Plane {
	if os.Getenv(inNamespace) == "" {
		if os.Getenv("SKEP_REQUIRE_DOCKER") == "1" {
			t.Fatal("needs root, and a kernel with network namespaces")
		}
		t.Skip("needs root")
	}
	return linux.New(slog.New(slog.NewTextHandler(testWriter{t}, nil)))
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) { w.t.Log(string(p)); return len(p), nil }

// TestPlane_HasWhatIsDesired goes from any account of networks to any other in a real kernel: after
// at most two rounds what a dump lists is what is desired, and nothing is left to do.
func TestPlane_HasWhatIsDesired(t *testing.T) {
	plane := kernel(t)
	ctx := context.Background()
	rapid.Check(t, func(t *rapid.T) {
		settle(t, ctx, plane, networktest.Wanted(t))
	})
	settle(t, ctx, plane, &network.Wanted{Cluster: "c"})
}

// settle plans and applies until nothing is left to do.
func settle(t interface {
	Fatal(...any)
	Fatalf(string, ...any)
}, ctx context.Context, plane network.Plane, w *network.Wanted) {
	for round := 0; ; round++ {
		existing, err := plane.Dump(ctx, "c")
		if err != nil {
			t.Fatal(err)
		}
		desired := network.Desired(w, existing.Ports)
		steps := network.Plan(desired, existing.Objects, true)
		if len(steps) == 0 {
			if got, want := keys(existing.Objects), keys(desired); !slices.Equal(got, want) {
				t.Fatalf("there is\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			return
		}
		if round == 2 {
			t.Fatalf("still to do after %d rounds: %v", round, steps)
		}
		if err := plane.Apply(ctx, steps); err != nil {
			t.Fatal(err)
		}
	}
}

func keys(objects []network.Object) []string {
	list := make([]string, len(objects))
	for i, o := range objects {
		if c, is := o.(network.Chain); is {
			c.Backends = network.Digest(c.Backends)
			o = c
		}
		list[i] = o.String()
	}
	slices.Sort(list)
	return list
}
