package up

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// fakePrograms stand for ssh and sudo: that ssh runs commands here, and that sudo, as its user says in
// $SUDO_WANTS, asks for a password, or doesn't.
var fakePrograms = map[string]string{
	"ssh": `#!/bin/sh
if [ "$1" = -G ]; then
  [ "$3" != behind ] || echo "proxyjump m1"
  exit
fi
printf '%s\n' "$*" >>"$SSH_SAYS"
batch=
while [ $# -gt 0 ] && [ "$1" != -- ]; do [ "$1" != BatchMode=yes ] || batch=1; shift; done
host=$2 command=$3
case $host$batch in
  unknown1) echo "Host key verification failed." >&2; exit 255;;
esac
case $host in
  away) echo "ssh: connect to host away port 22: No route to host" >&2; exit 255;;
esac
export SSH_CONNECTION="10.0.0.9 50000 10.0.0.1 22"
exec sh -c "$command"
`,
	"id": "#!/bin/sh\necho \"$FAKE_UID\"\n",
	"sudo": `#!/bin/sh
ask=
while [ $# -gt 0 ]; do
  case $1 in
    -n) [ -n "$SUDO_WANTS" ] && { echo "sudo: a password is required" >&2; exit 1; };;
    -S) ask=1;;
    -p) shift;;
    -k) ;;
    --) shift; break;;
    *) break;;
  esac
  shift
done
if [ -n "$ask" ] && [ -n "$SUDO_WANTS" ]; then
  read -r given
  [ "$given" = "$SUDO_WANTS" ] || { echo "sudo: 1 incorrect password attempt" >&2; exit 1; }
fi
exec "$@"
`,
}

// fakeSSH is an SSH by programs that stand for the system's, and what it was told and logged.
func fakeSSH(t *testing.T, answers ...string) (s *SSH, told, logged func() string) {
	t.Helper()
	bin := t.TempDir()
	for name, text := range fakePrograms {
		if err := os.WriteFile(filepath.Join(bin, name), []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	says := filepath.Join(t.TempDir(), "says")
	t.Setenv("SSH_SAYS", says)
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	var mu sync.Mutex
	var log strings.Builder
	s, err := OpenSSH(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	s.Log = func(host, text string) {
		mu.Lock()
		defer mu.Unlock()
		log.WriteString(host + ": " + text + "\n")
	}
	s.Ask = func(string) (string, error) {
		if len(answers) == 0 {
			return "", errors.New("no terminal")
		}
		given := answers[0]
		answers = answers[1:]
		return given, nil
	}
	return s, func() string {
			text, _ := os.ReadFile(says)
			return string(text)
		}, func() string {
			mu.Lock()
			defer mu.Unlock()
			return log.String()
		}
}

// odd is a text that a shell would make something else of.
const odd = `it's $HOME "and" ` + "`more`" + ` \n; exit 1`

func TestSSH_RunsAsRootWhoeverLogsIn(t *testing.T) {
	for name, c := range map[string]struct {
		uid, wants string
		answers    []string
		says       string
	}{
		"root":                   {uid: "0"},
		"sudo that asks nothing": {uid: "1000"},
		"sudo that asks":         {uid: "1000", wants: "open sesame", answers: []string{"open sesame"}},
		"a password mistyped":    {uid: "1000", wants: "open sesame", answers: []string{"open", "open sesame"}},
		"no password":            {uid: "1000", wants: "open sesame", answers: []string{"a", "b", "c"}, says: "takes none of the passwords"},
		"nobody to ask":          {uid: "1000", wants: "open sesame", says: "no terminal"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("FAKE_UID", c.uid)
			t.Setenv("SUDO_WANTS", c.wants)
			s, told, logged := fakeSSH(t, c.answers...)
			h, err := s.Connect(t.Context(), "m1", true)
			if c.says != "" {
				if err == nil || !strings.Contains(err.Error(), c.says) {
					t.Errorf("%v, want something with %q", err, c.says)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if h.Reached != "10.0.0.1" || h.Root != (c.uid == "0") || h.Arch == "" {
				t.Errorf("%+v", h)
			}
			var out bytes.Buffer
			if err := s.Run(t.Context(), "m1", Order{Verb: "skep", Args: []string{"sh", "-c", `cat; printf %s "$1"`, "x", odd}, In: strings.NewReader("all of the input\n"), Out: &out}); err != nil {
				t.Fatal(err)
			}
			if want := "all of the input\n" + odd; out.String() != want {
				t.Errorf("got %q, want %q", out.String(), want)
			}
			if c.wants != "" && (strings.Contains(told(), c.wants) || strings.Contains(logged(), c.wants)) {
				t.Errorf("the password is in\n%s\n%s", told(), logged())
			}
			if strings.Contains(told(), "StrictHostKeyChecking") {
				t.Errorf("ssh is told to trust hosts: %s", told())
			}
			first, _, _ := strings.Cut(told(), "\n")
			if strings.Contains(first, "BatchMode") || !strings.Contains(told(), "BatchMode=yes") {
				t.Errorf("the first connection may ask, and no other one: %s", told())
			}
		})
	}
}

// TestSSH_AsksNobodyWhoMayNotBeAsked has several hosts connected at once, while nobody can answer.
func TestSSH_AsksNobodyWhoMayNotBeAsked(t *testing.T) {
	for _, c := range []struct {
		name, host, uid, wants string
		asks                   bool
	}{
		{"root", "m1", "0", "", false},
		{"sudo that asks nothing", "m1", "1000", "", false},
		{"a host that isn't known", "unknown", "0", "", true},
		{"sudo that asks", "m1", "1000", "open sesame", true},
		{"a host behind another", "behind", "0", "", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv("FAKE_UID", c.uid)
			t.Setenv("SUDO_WANTS", c.wants)
			s, told, _ := fakeSSH(t, c.wants)
			ask := s.Ask
			s.Ask = func(string) (string, error) { t.Error("it asks"); return "", nil }
			if _, err := s.Connect(t.Context(), c.host, false); errors.Is(err, ErrAsks) != c.asks || err != nil != c.asks {
				t.Errorf("%v, want that it asks: %v", err, c.asks)
			}
			for line := range strings.Lines(told()) {
				if strings.HasPrefix(line, "-T ") && !strings.Contains(line, "BatchMode=yes") {
					t.Errorf("it may ask: %s", line)
				}
			}
			if c.host == "behind" && told() != "" {
				t.Errorf("the host in front of it may have been asked by: %s", told())
			}
			if s.Ask = ask; !c.asks {
				return
			}
			if _, err := s.Connect(t.Context(), c.host, true); err != nil {
				t.Errorf("asked: %v", err)
			}
		})
	}
	t.Setenv("FAKE_UID", "0")
	s, _, _ := fakeSSH(t)
	if _, err := s.Connect(t.Context(), "away", false); err == nil || errors.Is(err, ErrAsks) || !strings.Contains(err.Error(), "No route to host") {
		t.Errorf("a host that can't be reached: %v", err)
	}
}

// TestOpenSSH_RemovesWhatWasLeft has a process killed, and looks at what the next one leaves alone.
func TestOpenSSH_RemovesWhatWasLeft(t *testing.T) {
	t.Setenv("FAKE_UID", "0")
	_, told, _ := fakeSSH(t)
	temp := t.TempDir()
	open := func() *SSH {
		s, err := OpenSSH(temp)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	killed, living := open(), open()
	socket := filepath.Join(killed.dir, "a")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := os.WriteFile(filepath.Join(killed.dir, "said-1"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_ = killed.hold.Close() // As when it ends.
	public, elsewhere := filepath.Join(temp, dirPrefix+"public"), t.TempDir()
	if err := errors.Join(os.Mkdir(public, 0o700), os.Chmod(public, 0o755), os.Symlink(elsewhere, filepath.Join(temp, dirPrefix+"link"))); err != nil { //nolint:gosec // It is meant.
		t.Fatal(err)
	}
	next := open()
	if _, err := os.Stat(killed.dir); err == nil {
		t.Error("what was left is still there")
	}
	if want := "-o ControlPath=" + socket + " -O exit none\n"; told() != want {
		t.Errorf("told %q, want %q", told(), want)
	}
	for _, dir := range []string{living.dir, next.dir, public, elsewhere} {
		if _, err := os.Stat(dir); err != nil {
			t.Error(err)
		}
	}
	if err := errors.Join(living.Close(), next.Close()); err != nil {
		t.Error(err)
	}
}

func TestSSH_SaysWhatSSHSays(t *testing.T) {
	s, _, _ := fakeSSH(t)
	t.Setenv("FAKE_UID", "0")
	if _, err := s.Connect(t.Context(), "away", true); err == nil || !strings.Contains(err.Error(), "ssh: connect to host away port 22: No route to host") {
		t.Error(err)
	}
	if _, err := s.Connect(t.Context(), "m1", true); err != nil {
		t.Fatal(err)
	}
	err := s.Run(t.Context(), "m1", Order{Verb: "skep", Args: []string{"sh", "-c", "echo it broke >&2; exit 3"}})
	if f := (failure{}); !errors.As(err, &f) || f.lost || f.words != "it broke" {
		t.Errorf("%#v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Run(ctx, "m1", Order{Verb: "left"}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(s.dir); err == nil {
		t.Error("its directory is left")
	}
}

func TestSSH_NeedsSudo(t *testing.T) {
	s, _, _ := fakeSSH(t)
	t.Setenv("FAKE_UID", "1000")
	bin, _, _ := strings.Cut(os.Getenv("PATH"), ":")
	if err := os.Remove(filepath.Join(bin, "sudo")); err != nil {
		t.Fatal(err)
	}
	// Nothing but what the command needs.
	for _, name := range []string{"sh", "uname", "cat"} {
		for _, dir := range []string{"/bin", "/usr/bin"} {
			if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
				_ = os.Symlink(filepath.Join(dir, name), filepath.Join(bin, name))
			}
		}
	}
	t.Setenv("PATH", bin)
	if _, err := s.Connect(t.Context(), "m1", true); err == nil || !strings.Contains(err.Error(), "no sudo") {
		t.Error(err)
	}
}

// TestScripts_AreUnderstood has a shell read each.
func TestScripts_AreUnderstood(t *testing.T) {
	s, _, _ := fakeSSH(t)
	t.Setenv("FAKE_UID", "0")
	if _, err := s.Connect(t.Context(), "m1", true); err != nil {
		t.Fatal(err)
	}
	for name, text := range scripts {
		if err := s.Run(t.Context(), "m1", Order{Verb: "skep", Args: []string{"sh", "-n", "-c", text}}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
