package linux_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"skep/agent/network/linux"
)

// TestCheck_SaysWhatIsMissing takes from a machine what networks need.
func TestCheck_SaysWhatIsMissing(t *testing.T) {
	kernel(t)
	list := func() string {
		links, err := exec.Command("ip", "-o", "link").CombinedOutput()
		if err != nil {
			t.Fatal(err)
		}
		tables, err := exec.Command("nft", "list", "tables").CombinedOutput()
		if err != nil {
			t.Skip("needs nft")
		}
		return string(links) + string(tables)
	}
	forward := func(value string) {
		if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte(value), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	before := list()
	forward("1")
	if err := linux.Check(); err != nil {
		t.Errorf("a machine that has all: %v", err)
	}
	forward("0")
	if err := linux.Check(); err == nil || !strings.Contains(err.Error(), "ip_forward=1") {
		t.Errorf("a machine that doesn't forward: %v", err)
	}
	forward("1")
	if after := list(); after != before {
		t.Errorf("left behind:\n%s\nbefore:\n%s", after, before)
	}
	// Without the right it can't be tried.
	if _, err := exec.LookPath("setpriv"); err != nil {
		t.Skip("needs setpriv")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command("setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin", self)
	c.Env = append(os.Environ(), role+"="+roleCheck)
	if out, err := c.CombinedOutput(); err == nil || !strings.Contains(string(out), "NET_ADMIN") {
		t.Errorf("without the right: %v, %s", err, out)
	}
}
