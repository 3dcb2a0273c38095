package main

import (
	"context"
	"fmt"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestLinkBetween(t *testing.T) {
	island := linkFault{nodes: []string{"a", "b"}, in: true, out: true}
	mute := linkFault{nodes: []string{"a"}, out: true}
	slow := linkFault{nodes: []string{"a"}, delay: 10, jitter: 2, loss: 0.5}
	everything := linkFault{nodes: []string{"a", "b", "c"}, delay: 5}
	for name, test := range map[string]struct {
		from, to string
		faults   []linkFault
		want     link
	}{
		"no fault":            {"a", "b", nil, link{}},
		"out of the island":   {"a", "c", []linkFault{island}, link{cut: true}},
		"into the island":     {"c", "b", []linkFault{island}, link{cut: true}},
		"within the island":   {"a", "b", []linkFault{island}, link{}},
		"outside the island":  {"c", "d", []linkFault{island}, link{}},
		"the mute one speaks": {"a", "c", []linkFault{mute}, link{cut: true}},
		"the mute one hears":  {"c", "a", []linkFault{mute}, link{}},
		"slow both ways":      {"c", "a", []linkFault{slow}, link{delay: 10, jitter: 2, loss: 0.5}},
		"slow once":           {"a", "b", []linkFault{everything}, link{delay: 5}},
		"faults add up":       {"a", "c", []linkFault{slow, everything, slow}, link{delay: 25, jitter: 4, loss: 0.75}},
	} {
		t.Run(name, func(t *testing.T) {
			got := linkBetween(test.from, test.to, test.faults)
			if got.cut != test.want.cut || got.delay != test.want.delay || got.jitter != test.want.jitter || math.Abs(got.loss-test.want.loss) > 1e-9 {
				t.Errorf("%+v, want %+v", got, test.want)
			}
		})
	}
	left := healed([]linkFault{island, mute, slow}, []string{"a"})
	if want := []linkFault{{nodes: []string{"b"}, in: true, out: true}}; !reflect.DeepEqual(left, want) {
		t.Errorf("left after healing a: %+v", left)
	}
	if !reflect.DeepEqual(island.nodes, []string{"a", "b"}) {
		t.Error("healing changed the fault that others hold")
	}
}

func TestInside(t *testing.T) {
	all := []runningProcess{
		{pid: 10, parent: 1, network: "ours"}, {pid: 11, parent: 10, network: "ours"}, {pid: 12, parent: 11, network: "a container's"},
		{pid: 13, parent: 12, network: "a container's"}, {pid: 20, parent: 1, network: "another's"}, {pid: os.Getpid(), parent: 1, network: "ours"},
	}
	if got := inside("ours", all); !reflect.DeepEqual(got, []int{10, 11, 12, 13}) {
		t.Errorf("inside are %v", got)
	}
}

// needIsolation skips a test where there are no namespaces to be had.
func needIsolation(t *testing.T) {
	t.Helper()
	if !canIsolate() {
		t.Skip("NOTICE: no root, iproute2 or /dev/net/tun: not tested in namespaces")
	}
}

func TestFabric_LinksAreAsTheFaultsSay(t *testing.T) {
	needIsolation(t)
	f := newFabric()
	defer f.close()
	spaces := map[string]*namespace{}
	addrs := map[string]string{}
	for _, name := range []string{"a", "b"} {
		n, err := newNamespace(name)
		if err != nil {
			t.Fatal(err)
		}
		defer n.close()
		if addrs[name], err = f.attach(n, name); err != nil {
			t.Fatal(err)
		}
		spaces[name] = n
	}
	// b echoes what a sends, as datagrams: nothing is sent twice.
	var echo, client net.PacketConn
	for name, conn := range map[string]*net.PacketConn{"b": &echo, "a": &client} {
		err := spaces[name].do(func() (err error) {
			*conn, err = (&net.ListenConfig{}).ListenPacket(t.Context(), "udp4", addrs[name]+":7000")
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		defer (*conn).Close()
	}
	heard := make(chan string, 100)
	go func() {
		buffer := make([]byte, 100)
		for {
			n, from, err := echo.ReadFrom(buffer)
			if err != nil {
				return
			}
			heard <- string(buffer[:n])
			_, _ = echo.WriteTo(buffer[:n], from)
		}
	}()
	to := &net.UDPAddr{IP: net.ParseIP(addrs["b"]), Port: 7000}
	ask := func(what string) (arrived, answered bool, took time.Duration) {
		start := time.Now()
		if _, err := client.WriteTo([]byte(what), to); err != nil {
			t.Fatal(err)
		}
		_ = client.SetReadDeadline(start.Add(400 * time.Millisecond))
		buffer := make([]byte, 100)
		n, _, err := client.ReadFrom(buffer)
		took = time.Since(start)
		select {
		case got := <-heard:
			arrived = got == what
		default:
		}
		return arrived, err == nil && string(buffer[:n]) == what, took
	}
	check := func(what string, arrives, answers bool) time.Duration {
		t.Helper()
		arrived, answered, took := ask(what)
		if arrived != arrives || answered != answers {
			t.Errorf("%s: arrived %v, answered %v", what, arrived, answered)
		}
		return took
	}
	check("plain", true, true)
	f.disturb(linkFault{nodes: []string{"b"}, in: true, out: true})
	check("cut", false, false)
	f.heal([]string{"b"})
	check("healed", true, true)
	f.disturb(linkFault{nodes: []string{"b"}, out: true})
	check("one way", true, false)
	f.heal([]string{"b"})
	f.disturb(linkFault{nodes: []string{"a"}, delay: 60 * time.Millisecond})
	if took := check("slow", true, true); took < 120*time.Millisecond {
		t.Errorf("60 ms each way took %v", took)
	}
	f.heal([]string{"a"})
	f.disturb(linkFault{nodes: []string{"a"}, loss: 1})
	check("lost", false, false)
	f.heal([]string{"a"})
	check("healed again", true, true)
}

// onFirstThread asks a copy of the test's process, before anything else runs there, to
// hold a namespace on its first thread.
const onFirstThread = "SKEP_LAB_FIRST_THREAD"

func init() {
	if os.Getenv(onFirstThread) == "" {
		return
	}
	before, _ := os.Readlink("/proc/self/ns/net")
	n, made := &namespace{work: make(chan func())}, make(chan error)
	go func() {
		err := <-made
		now, _ := os.Readlink("/proc/self/ns/net")
		if err != nil || now != before || n.id == before {
			fmt.Printf("%v: the process was in %s and is in %s, the namespace is %s\n", err, before, now, n.id)
			os.Exit(1)
		}
		os.Exit(0)
	}()
	n.hold("nobody", made)
}

func TestNamespace_NeverOnTheFirstThread(t *testing.T) {
	needIsolation(t)
	command := exec.Command(os.Args[0])
	command.Env = append(os.Environ(), onFirstThread+"=1")
	if out, err := command.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

func TestNamespace_NothingOutlivesIt(t *testing.T) {
	needIsolation(t)
	n, err := newNamespace("short-lived")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := n.tool("mount", "-t", "tmpfs", "tmpfs", dir); err != nil {
		t.Fatal(err)
	}
	if mounts, err := os.ReadFile("/proc/self/mounts"); err != nil || strings.Contains(string(mounts), dir) {
		t.Errorf("%v: the mount is seen outside", err)
	}
	p := &process{name: "sleeper", logFile: filepath.Join(dir, "log"), in: n}
	if err := p.run("sh", "-c", "hostname; sleep 1000"); err != nil {
		t.Fatal(err)
	}
	defer p.kill()
	err = until(t.Context(), 10*time.Second, "the shell and its sleep", func(context.Context) error {
		if pids := inside(n.id, runningProcesses()); p.lastLog() != "short-lived\n" || len(pids) != 2 {
			return fmt.Errorf("the host name is %q, inside are %v", p.lastLog(), pids)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	n.close()
	<-p.ended
	if left := inside(n.id, runningProcesses()); len(left) > 0 {
		t.Errorf("left inside: %v", left)
	}
}

func TestDisk_FullAndFrozen(t *testing.T) {
	needIsolation(t)
	if !haveDisks() {
		t.Skip("NOTICE: no mkfs.ext4 or no loop devices: not tested on disks")
	}
	n, err := newNamespace("disk")
	if err != nil {
		t.Fatal(err)
	}
	defer n.close()
	dir := t.TempDir()
	d, err := newDisk(n, dir, filepath.Join(dir, "data"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.thaw() }()
	write := func() error {
		return n.do(func() error { return os.WriteFile(filepath.Join(d.mount, "file"), make([]byte, 8192), 0o600) })
	}
	if err := write(); err != nil {
		t.Fatal(err)
	}
	if err := n.do(func() error { return os.Remove(filepath.Join(d.mount, "file")) }); err != nil {
		t.Fatal(err)
	}
	if err := d.fill(); err != nil {
		t.Fatal(err)
	}
	// What was freed for the filler's end may hold a little; eight kilobytes it must not.
	if err := write(); err == nil {
		t.Error("a full disk took a file")
	}
	if err := d.free(); err != nil {
		t.Fatal(err)
	}
	if err := write(); err != nil {
		t.Errorf("there is room again: %v", err)
	}
	if err := d.freeze(); err != nil {
		t.Fatal(err)
	}
	p := &process{name: "writer", logFile: os.DevNull, in: n}
	if err := p.run("sh", "-c", "echo x >"+filepath.Join(d.mount, "late")); err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.ended:
		t.Error("a frozen disk took a file")
	case <-time.After(300 * time.Millisecond):
	}
	if err := d.thaw(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.ended:
	case <-time.After(10 * time.Second):
		t.Error("the disk didn't thaw")
	}
}
