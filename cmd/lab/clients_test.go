package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// needPython skips a test where the system's Python hasn't Docker's SDK.
func needPython(t *testing.T) {
	t.Helper()
	if testing.Short() {
		return // and newSolo skips
	}
	out, err := exec.CommandContext(t.Context(), "/usr/bin/python3", "-c", "import docker").CombinedOutput()
	if err == nil {
		return
	}
	if os.Getenv(requireDocker) == "1" {
		t.Fatalf("no Docker SDK for Python (package python3-docker), and %s=1: %v\n%s", requireDocker, err, out)
	}
	t.Skip("NOTICE: no Docker SDK for Python (package python3-docker): not tested with it")
}

// TestClients_PythonSDK runs testdata/sdk.py with the API version that the SDK speaks
// of itself, and with the newest that both know.
func TestClients_PythonSDK(t *testing.T) {
	needPython(t)
	b := newSolo(t)
	image := b.image()
	for _, version := range []string{"1.41", "auto"} {
		if out, err := b.command("/usr/bin/python3", "testdata/sdk.py", image, version); err != nil {
			t.Errorf("with version %s: %v\n%s", version, err, out)
		}
	}
}

// TestClients_Ansible plays testdata/playbook.yml: the second time nothing is left to
// change, and at the end nothing is left.
func TestClients_Ansible(t *testing.T) {
	needPython(t)
	b := newSolo(t, "ansible-playbook", "docker-registry")
	image := startRegistry(b, "") + "/lab/app:1"
	b.docker("tag", b.image(), image)
	b.docker("push", image)
	b.images = append(b.images, image)
	t.Setenv("ANSIBLE_HOME", t.TempDir())
	t.Setenv("ANSIBLE_LOCAL_TEMP", t.TempDir())
	t.Setenv("ANSIBLE_REMOTE_TEMP", t.TempDir())
	t.Setenv("LC_ALL", "C.UTF-8")
	play := func(want string, more ...string) {
		t.Helper()
		args := append([]string{"-i", "localhost,", "testdata/playbook.yml", "--diff", "-e", "image=" + image}, more...)
		if out, err := b.command("ansible-playbook", args...); err != nil || !strings.Contains(out, want) {
			t.Fatalf("%v, want %s\n%s", err, want, out)
		}
	}
	play("changed=6")
	b.eventually("2/2", "service", "ls", "--filter", "name=ansible", "--format", "{{.Name}} {{.Replicas}}")
	b.eventually("1/1", "service", "ls", "--filter", "name=ansible-plain", "--format", "{{.Name}} {{.Replicas}}")
	play("changed=0")
	play("changed=3", "-e", "state=absent")
	for _, kind := range []string{"service", "secret", "config"} {
		if left := b.docker(kind, "ls", "-q"); left != "" {
			t.Errorf("%ss that are left: %s", kind, left)
		}
	}
}
