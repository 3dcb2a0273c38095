package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// options reads a daemon's command line.
func options(t *testing.T, args ...string) (daemonOptions, error) {
	t.Helper()
	var o daemonOptions
	fs := pflag.NewFlagSet("daemon", pflag.ContinueOnError)
	o.install(fs)
	if err := fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	return o, o.check()
}

func TestDaemonOptions_DefaultsAreEnough(t *testing.T) {
	o, err := options(t)
	if err != nil {
		t.Fatal(err)
	}
	if o.dataDir != "/var/lib/skep" || len(o.hosts) != 1 || o.hosts[0] != defaultHost || o.hostname == "" {
		t.Errorf("defaults are %+v", o)
	}
}

func TestDaemonOptions_RefusesWhatCannotWork(t *testing.T) {
	nonsense := tokens(t, "nonsense")
	for args, says := range map[string]string{
		"--driver podman":                             "want one of docker, simulate",
		"--log-level loud":                            "want one of debug",
		"--log-format xml":                            "want one of text, json",
		"--availability maybe":                        "want one of active, pause, drain",
		"--token-file t":                              "needs --join",
		"--host http://127.0.0.1:1":                   "want unix:///path or tcp://",
		"--host unix://run/skep.sock":                 "want unix:///absolute/path",
		"--host tcp://127.0.0.1":                      "want tcp://ADDRESS:PORT",
		"--host tcp://0.0.0.0:2375":                   "loopback",
		"--host tcp://10.0.0.1:2375":                  "loopback",
		"--host unix:///a.sock --host unix:///a.sock": "given twice",
		"--group nobody-made-this":                    "there is no such group",
		"--group -1":                                  "there is no such group",
		"--group root --host tcp://127.0.0.1:2375":    "needs a --host unix",
		"--engine /var/run/docker.sock":               "want unix:///path or tcp://",
		"--engine=":                                   "want unix:///path or tcp://",
		"--runtime-dir=tasks":                         "want an absolute path below the root",
		"--data-dir=":                                 "--data-dir is empty",
		"--host tcp://:2375":                          "loopback",
		"--metrics-addr 0.0.0.0:9100":                 "--metrics-insecure",
		"--metrics-addr 127.0.0.1:9100 --metrics-token-file /dev/null":      "0 characters",
		"--metrics-addr 127.0.0.1:9100 --metrics-token-file /nowhere/to/be": "no such file",
		"--metrics-tls":                                                  "--metrics-addr",
		"--console-addr :2378":                                           "want IP:PORT",
		"--console-cert /nowhere":                                        "--console-addr",
		"--console-token-file /nowhere":                                  "--console-addr",
		"--console-addr 127.0.0.1:2378 --console-cert /nowhere":          "go together",
		"--console-addr 127.0.0.1:2378 --console-token-file /nowhere":    "no such file",
		"--console-addr 127.0.0.1:2378 --console-token-file /etc/passwd": "its permissions are",
		"--console-addr 127.0.0.1:2378 --console-token-file /dev/null":   "it is no file",
		"--console-addr 127.0.0.1:2378 --console-token-file " + nonsense: "line 1: want",
		"--metrics-detail all":                                           "want one of service, node",
		"--driver podman --log-format xml --log-level no":                "--log-format",
	} {
		if _, err := options(t, strings.Fields(args)...); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want something with %q", args, err, says)
		}
	}
}

func TestDaemonOptions_FindsTheGroup(t *testing.T) {
	for _, group := range []string{"daemon", "1"} { // Debian's and Red Hat's own: 1
		if o, err := options(t, "--group", group); err != nil || o.gid == nil || *o.gid != 1 {
			t.Errorf("--group %s: %v, %v", group, o.gid, err)
		}
	}
}

// tokens is a file with that text, which nobody else can read.
func tokens(t *testing.T, text string) string {
	path := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDaemonOptions_AcceptsWhatWorks(t *testing.T) {
	for _, args := range []string{
		"--init --advertise-addr 127.0.1.1 --listen-addr 127.0.1.1",
		"--join 127.0.1.1:2377 --token-file /run/token --availability drain",
		"--init --join m2,m3:2377 --token-file /run/token",
		"--join m1 --join m2",
		"--host unix:///a.sock --host tcp://127.0.0.1:2375 --host tcp://[::1]:2375 --host tcp://localhost:2376",
		"--driver simulate --engine= --hostname n1",
		"--metrics-addr 127.0.0.1:9100 --metrics-detail node",
		"--metrics-addr 10.0.0.1:9100 --metrics-tls",
		"--console-addr 0.0.0.0:2378 --console-token-file " + tokens(t, "read 0123456789abcdef wall\n"),
		"--engine tcp://127.0.0.1:2375 --log-level debug --log-format json",
	} {
		if _, err := options(t, strings.Fields(args)...); err != nil {
			t.Errorf("%s: %v", args, err)
		}
	}
}

func TestDaemonOptions_DataDirBecomesAbsolute(t *testing.T) {
	o, err := options(t, "--data-dir", "here")
	if err != nil || !filepath.IsAbs(o.dataDir) {
		t.Errorf("data directory %q, %v", o.dataDir, err)
	}
}
