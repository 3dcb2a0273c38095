package docker

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/docker/docker/api/types/swarm"

	"skep/agent"
	"skep/cluster"
)

func TestFiles_RefuseEnginesThatCouldNotReadThem(t *testing.T) {
	free := &swarm.ContainerSpec{Privileges: &swarm.Privileges{SELinuxContext: &swarm.SELinuxContext{Disable: true}}}
	for _, test := range []struct {
		options []string
		spec    *swarm.ContainerSpec
		refused bool
	}{
		{[]string{"name=apparmor", "name=seccomp,profile=builtin", "name=cgroupns"}, &swarm.ContainerSpec{}, false},
		{[]string{"name=seccomp,profile=default", "name=userns"}, free, true},
		{[]string{"name=rootless"}, free, true},
		{[]string{"name=selinux"}, &swarm.ContainerSpec{}, true},
		{[]string{"name=selinux"}, free, false},
	} {
		if err := checkSecurity(test.options, test.spec); errors.Is(err, cluster.ErrUnsupported) != test.refused {
			t.Errorf("%v: %v", test.options, err)
		}
	}
}

func TestFiles_AnEngineThatDoesNotSeeThem(t *testing.T) {
	f := &filer{dir: "/run/skep/tasks"}
	for text, want := range map[string]bool{
		`invalid mount config for type "bind": bind source path does not exist: /run/skep/tasks/n1/t1/0`: true,
		`invalid mount config for type "bind": bind source path does not exist: /srv/data`:               false,
		`No such image: /run/skep/tasks/x`: false,
	} {
		if got := f.lacksFile(errors.New(text)); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
	if f.lacksFile(nil) {
		t.Error("no error")
	}
}

// A path that can't be a directory, or that can't be written to, is an error that
// says what to do, and leaves nothing.
func TestFiles_NoPlaceForThem(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f := &filer{dir: filepath.Join(dir, "file"), placed: map[string]string{}}
	_, err := f.place("n1", "t1", []agent.File{{Target: "/x", Data: []byte("canary")}})
	if !errors.Is(err, cluster.ErrUnsupported) || len(f.placed) > 0 {
		t.Errorf("%v, %v", err, f.placed)
	}
}
