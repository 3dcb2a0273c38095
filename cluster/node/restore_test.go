package node

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/agent/simulate"
	"skep/cluster"
)

// TestAttack_RestoreOfWhatIsNoFile has a node read what never ends, or never begins. It
// is refused at once, and the next order finds the node free.
func TestAttack_RestoreOfWhatIsNoFile(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := syscall.Mkfifo(at("pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("unix", at("socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	large, err := os.Create(at("large"))
	if err != nil {
		t.Fatal(err)
	}
	defer large.Close()
	if err := large.Truncate(1 << 40); err != nil {
		t.Skip(err) // no sparse files here
	}
	for name, target := range map[string]string{"link": at("pipe"), "link to a device": "/dev/zero", "link to nothing": at("none"), "loop": at("loop")} {
		if err := os.Symlink(target, at(name)); err != nil {
			t.Fatal(err)
		}
	}
	n, err := New(Config{DataDir: t.TempDir(), Driver: simulate.New(simulate.Config{}), Hostname: "n1", Network: takenPorts{port: "none"}})
	if err != nil {
		t.Fatal(err)
	}
	n.runCtx = t.Context()
	close(n.ready)
	for path, says := range map[string]string{
		at("pipe"): "no regular file", at("link"): "no regular file", at("link to a device"): "no regular file", at("socket"): "no regular file",
		dir: "no regular file", "/dev/zero": "no regular file", "/dev/tty": "", at("large"): "more than any backup",
		at("link to nothing"): "no such file", at("loop"): "too many levels", at("none"): "no such file",
	} {
		done := make(chan error, 1)
		go func() {
			_, err := n.Restore(context.Background(), cluster.RestoreRequest{AdvertiseAddr: "127.0.0.1", Path: path, Key: make([]byte, cluster.BackupKeySize)})
			done <- err
		}()
		select {
		case err := <-done:
			if err == nil || !strings.Contains(err.Error(), says) {
				t.Errorf("%s: %v", path, err)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%s: the order goes on", path)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := n.Init(ctx, swarm.InitRequest{AdvertiseAddr: "nonsense"}); err == nil || ctx.Err() != nil {
		t.Errorf("the next order: %v", err)
	}
	regular := at("regular")
	if err := os.WriteFile(regular, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(regular, at("link to a file")); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{regular, at("link to a file")} {
		if _, err := n.Restore(t.Context(), cluster.RestoreRequest{AdvertiseAddr: "127.0.0.1", Path: path, Key: make([]byte, cluster.BackupKeySize)}); err == nil || strings.Contains(err.Error(), "no regular") {
			t.Errorf("%s: %v", path, err)
		}
	}
}
