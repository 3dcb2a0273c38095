package up

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// SSH reaches machines by the system's own ssh, as the user has set it up: configuration, agent, jump hosts
// and known hosts are its. The first connection to each machine may ask at the terminal; what comes after goes over
// it, and asks nothing. It must be closed.
type SSH struct {
	// dir is for the sockets of the connections, and nobody else's: hold is a lock on it.
	dir  string
	hold *os.File
	// Ask reads a password from the terminal.
	Ask func(prompt string) (string, error)
	// Log takes what is run and what it says, without passwords and tokens.
	Log func(host, text string)

	mu sync.Mutex // guards the fields below
	// by is how a machine's root is reached.
	by map[string]rights
	// asked is the password that was given last.
	asked string
}

// dirPrefix is what the names of directories for sockets begin with.
const dirPrefix = "skep-ssh-"

// OpenSSH makes an SSH whose sockets are below a directory for what is temporary. What a process that was
// killed left there is removed, and its connections are ended.
func OpenSSH(temp string) (*SSH, error) {
	left, err := filepath.Glob(filepath.Join(temp, dirPrefix+"*"))
	if err != nil {
		return nil, err
	}
	for _, dir := range left {
		if hold, err := holdDir(dir); err == nil {
			_ = (&SSH{dir: dir, hold: hold}).Close()
		}
	}
	for try := 0; ; try++ {
		dir, err := os.MkdirTemp(temp, dirPrefix)
		if err != nil {
			return nil, err
		}
		hold, err := holdDir(dir)
		if err == nil {
			return &SSH{dir: dir, hold: hold}, nil
		}
		if try > 2 { // Others may just have taken it for one that was left.
			return nil, fmt.Errorf("hold %s: %w", dir, err)
		}
	}
}

// holdDir locks a directory of this user's, which nobody else may enter, until the file is closed, or
// the process has ended.
func holdDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	var held, there unix.Stat_t
	if err == nil {
		err = errors.Join(unix.Fstat(int(f.Fd()), &held), unix.Lstat(dir, &there))
	}
	switch {
	case err != nil:
	case held.Ino != there.Ino || held.Dev != there.Dev:
		err = errors.New("it is another one now")
	case held.Uid != uint32(os.Geteuid()) || held.Mode&0o077 != 0:
		err = errors.New("it is somebody else's")
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// rights are how to be root on a machine.
type rights struct{ sudo, password string }

// connectLimit is how long a machine may take until a connection to it stands, if ssh's configuration doesn't say.
const connectLimit = 15 * time.Second

// sshFailed is ssh's exit status for its own failures.
const sshFailed = 255

// hello is what is run first, by whoever ssh logs in. Sudo has it asked anew whether it wants a password: one
// that it remembers would be taken for none.
const hello = `echo "skep: uid $(id -u)"; echo "skep: machine $(uname -s) $(uname -m)"; echo "skep: connection $SSH_CONNECTION"
command -v sudo >/dev/null && echo "skep: sudo"; command -v sudo >/dev/null && sudo -k -n true 2>/dev/null && echo "skep: free"; true`

// goArch are the names of architectures in Go, by those of uname.
var goArch = map[string]string{"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "riscv64": "riscv64", "ppc64le": "ppc64le", "s390x": "s390x", "i686": "386"}

func (s *SSH) command(ctx context.Context, host, remote string, first bool) *exec.Cmd {
	name := fnv.New64a() // A socket's path has room for few letters.
	_, _ = name.Write([]byte(host))
	path := filepath.Join(s.dir, fmt.Sprintf("%x", name.Sum64()))
	args := []string{"-T", "-o", "ControlMaster=auto", "-o", "ControlPersist=60", "-o", "ControlPath=" + path,
		"-o", "ServerAliveInterval=10", "-o", "ServerAliveCountMax=3", "-o", fmt.Sprintf("ConnectTimeout=%d", int(connectLimit.Seconds()))}
	if !first {
		args = append(args, "-o", "BatchMode=yes")
	}
	cmd := exec.CommandContext(ctx, "ssh", append(args, "--", host, remote)...)
	cmd.WaitDelay = 5 * time.Second
	if !first {
		// Neither a terminal nor a window to ask by, for what BatchMode doesn't hold from asking: a key's PIN.
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		cmd.Env = append(os.Environ(), "SSH_ASKPASS_REQUIRE=never")
	}
	return cmd
}

// detours tells whether ssh goes to a host by another one, or by a program: BatchMode isn't for those.
func (s *SSH) detours(ctx context.Context, host string) bool {
	ctx, cancel := context.WithTimeout(ctx, connectLimit)
	defer cancel()
	out, err := exec.CommandContext(ctx, "ssh", "-G", "--", host).Output()
	for line := range strings.Lines(string(out)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if (name == "proxyjump" || name == "proxycommand") && value != "none" {
			return true
		}
	}
	return err != nil
}

// unreachable tells whether ssh has failed before it had anything to ask.
func unreachable(said string) bool {
	return strings.HasPrefix(said, "ssh: connect to host ") || strings.HasPrefix(said, "ssh: Could not resolve hostname ")
}

// Connect makes the connection that everything goes over, and finds out how to be root.
func (s *SSH) Connect(ctx context.Context, host string, mayAsk bool) (Hello, error) {
	if !mayAsk && s.detours(ctx, host) {
		return Hello{}, ErrAsks
	}
	out, said, err := s.run(ctx, host, "sh -c "+quote(hello), nil, mayAsk)
	switch {
	case err == nil:
	case !mayAsk && exitCode(err) == sshFailed && !unreachable(said):
		s.Log(host, said)
		return Hello{}, ErrAsks
	default:
		return Hello{}, fmt.Errorf("ssh %s: %w", host, sshError(err, said))
	}
	found := map[string]string{}
	for line := range strings.Lines(out) {
		if rest, is := strings.CutPrefix(strings.TrimSpace(line), "skep: "); is {
			name, value, _ := strings.Cut(rest, " ")
			found[name] = value
		}
	}
	system, machine, _ := strings.Cut(found["machine"], " ")
	if system != "Linux" {
		return Hello{}, fmt.Errorf("it runs %q, and skep runs on Linux", system)
	}
	h := Hello{Arch: goArch[machine], Root: found["uid"] == "0"}
	if h.Arch == "" {
		h.Arch = machine
	}
	if way := strings.Fields(found["connection"]); len(way) == 4 {
		h.Reached = way[2]
	}
	_, sudo := found["sudo"]
	_, free := found["free"]
	r := rights{}
	switch {
	case h.Root:
	case !sudo:
		return Hello{}, errors.New("ssh doesn't log in as root there, and there is no sudo: log in as root, or install sudo (the engine's group isn't enough)")
	case free:
		r.sudo = "sudo -n -- "
	case !mayAsk:
		return Hello{}, ErrAsks // Over this connection.
	default:
		if r, err = s.password(ctx, host); err != nil {
			return Hello{}, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.by == nil {
		s.by = map[string]rights{}
	}
	s.by[host] = r
	return h, nil
}

// password asks for sudo's once; a machine with another one asks again.
func (s *SSH) password(ctx context.Context, host string) (rights, error) {
	for try := range 3 {
		if try > 0 || s.asked == "" {
			given, err := s.Ask(fmt.Sprintf("[sudo] password for %s: ", host))
			if err != nil {
				return rights{}, fmt.Errorf("sudo wants a password there, and there is no terminal to ask for it: %w", err)
			}
			s.asked = given
		}
		r := rights{"sudo -k -S -p '' -- ", s.asked + "\n"}
		_, said, err := s.run(ctx, host, r.sudo+"true", strings.NewReader(r.password), false)
		if err == nil {
			return r, nil
		}
		s.Log(host, "sudo: "+said)
		if code := exitCode(err); code == sshFailed || ctx.Err() != nil {
			return rights{}, sshError(err, said)
		}
	}
	s.asked = ""
	return rights{}, errors.New("sudo takes none of the passwords")
}

// run runs a command line; said is what came by standard error.
func (s *SSH) run(ctx context.Context, host, remote string, in io.Reader, first bool) (out, said string, err error) {
	var stdout bytes.Buffer
	said, err = s.stream(ctx, host, remote, in, &stdout, first)
	return stdout.String(), said, err
}

// mostSaid bounds what is kept of what a machine says.
const mostSaid = 64 << 10

func (s *SSH) stream(ctx context.Context, host, remote string, in io.Reader, out io.Writer, first bool) (said string, err error) {
	cmd := s.command(ctx, host, remote, first)
	cmd.Stdin, cmd.Stdout = in, out
	// A file: the connection goes on behind this command, and would hold the end of a pipe.
	file, err := os.CreateTemp(s.dir, "said-")
	if err != nil {
		return "", err
	}
	defer func() { _ = file.Close(); _ = os.Remove(file.Name()) }()
	cmd.Stderr = file
	err = cmd.Run()
	text := make([]byte, mostSaid)
	n, _ := file.ReadAt(text, 0)
	if cause := ctx.Err(); cause != nil && err != nil {
		err = cause
	}
	return strings.TrimSpace(string(text[:n])), err
}

// Run has the machine's root do what the order says.
func (s *SSH) Run(ctx context.Context, host string, o Order) error {
	s.mu.Lock()
	r, known := s.by[host]
	s.mu.Unlock()
	if !known {
		return fmt.Errorf("%s isn't connected", host)
	}
	in := o.In
	if in == nil {
		in = strings.NewReader("")
	}
	out := o.Out
	var kept bytes.Buffer
	if out == nil {
		out = &kept
	}
	s.Log(host, "run "+o.Verb+" "+strings.Join(o.Args, " "))
	said, err := s.stream(ctx, host, r.sudo+o.shell(), io.MultiReader(strings.NewReader(r.password), in), out, false)
	if kept.Len() > 0 && !o.Secret {
		s.Log(host, strings.TrimSpace(kept.String()))
	}
	if said != "" {
		s.Log(host, said)
	}
	if err != nil {
		s.Log(host, err.Error())
		return sshError(err, said)
	}
	return nil
}

// Close ends all connections.
func (s *SSH) Close() error {
	sockets, err := filepath.Glob(filepath.Join(s.dir, "*"))
	for _, path := range sockets {
		if is, err := os.Lstat(path); err != nil || is.Mode()&os.ModeSocket == 0 {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		_ = exec.CommandContext(ctx, "ssh", "-o", "ControlPath="+path, "-O", "exit", "none").Run()
		cancel()
	}
	return errors.Join(err, os.RemoveAll(s.dir), s.hold.Close())
}

func exitCode(err error) int {
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		return exit.ExitCode()
	}
	return -1
}

// failure is what went wrong on a machine, in its own words.
type failure struct {
	words string
	// lost tells that the connection failed, and nobody knows how far the command came.
	lost bool
}

func (f failure) Error() string { return f.words }

// sshError has ssh's or the command's own words.
func sshError(err error, said string) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	words := said
	if words == "" {
		words = err.Error()
	}
	return failure{words, exitCode(err) == sshFailed}
}
