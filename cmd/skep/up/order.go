package up

import (
	"context"
	"errors"
	"io"
	"strings"
)

// Order is a command for a machine.
type Order struct {
	// Verb names one of the scripts, Args are its arguments.
	Verb string
	Args []string
	In   io.Reader
	Out  io.Writer
	// Secret keeps what it prints out of the log.
	Secret bool
}

// Runner is the way to machines. In tests there is another one.
type Runner interface {
	// Connect says who is there. Something may have to be asked for that: it is asked if mayAsk says so, by
	// one at a time, and is ErrAsks otherwise.
	Connect(ctx context.Context, host string, mayAsk bool) (Hello, error)
	// Run has the machine's root do what the order says.
	Run(ctx context.Context, host string, o Order) error
}

// ErrAsks is that a machine can only be connected when somebody is asked something, or may be.
var ErrAsks = errors.New("something must be asked first")

// Hello is what a machine says before anything is put on it.
type Hello struct {
	// Arch is as Go calls it.
	Arch string
	// Reached is the machine's address that ssh has come by.
	Reached string
	// Root tells that ssh logs in as root.
	Root bool
}

// scripts are what machines are told, for a POSIX shell. What is an argument is in "$1", and so on.
var scripts = map[string]string{
	// The digests of what is there.
	"digests": `for f in ` + binaryPath + ` ` + packagedPath + ` ` + stagedPrefix + `*; do [ -f "$f" ] && sha256sum "$f"; done; true`,
	// A binary, under a name that nothing runs; what an earlier one has left is removed. It runs once: the wrong
	// architecture, or a file system that forbids it, is found before anything depends on it.
	"stage": `set -e; umask 022; mkdir -p /usr/local/bin; rm -f ` + stagedPrefix + `*; trap 'rm -f "$2.part"' EXIT
gzip -dc >"$2.part"; echo "$1  $2.part" | sha256sum -c >/dev/null; chmod 755 "$2.part"; "$2.part" --version >/dev/null; mv "$2.part" "$2"`,
	"unstage": `rm -f ` + stagedPrefix + `*`,
	// skep with arguments.
	"skep": `exec "$@"`,
	// From a staged binary to a daemon that runs it; all of it can be done again. What ran before stays beside it.
	"install": `set -e
case "$1" in ` + stagedPrefix + `*) [ ! -e ` + binaryPath + ` ] || ln -f ` + binaryPath + ` ` + formerPath + `; mv -f "$1" ` + binaryPath + `;; esac
if [ "$2" = unit ]; then
  "` + binaryPath + `" unit --mark >` + unitPath + `.new
  mv -f ` + unitPath + `.new ` + unitPath + `
fi
systemctl daemon-reload
systemctl enable -q skep
systemctl restart skep || { systemctl status --no-pager -n 10 skep >&2; exit 1; }`,
	// Nothing of skep stays but a package's files.
	"wipe": `systemctl disable -q --now skep 2>/dev/null
if [ -e ` + dataDir + `/identity.key ]; then "$1" node clear --force >/dev/null || exit 1; fi
for m in /run/skep/tasks/* /run/skep/tasks; do umount "$m" 2>/dev/null; done
rm -f ` + unitPath + ` ` + binaryPath + ` ` + formerPath + ` ` + stagedPrefix + `*
rm -rf /etc/systemd/system/skep.service.d ` + dataDir + ` /run/skep
systemctl daemon-reload; systemctl reset-failed skep 2>/dev/null; true`,
	// What is left of skep.
	"left": `ls -d ` + unitPath + ` ` + binaryPath + ` ` + formerPath + ` ` + stagedPrefix + `* ` + dataDir + ` /run/skep 2>/dev/null; true`,
	// The skep that is installed, with arguments.
	"installed": `for f in ` + binaryPath + ` ` + packagedPath + `; do [ -x $f ] && exec $f "$@"; done; echo "skep isn't installed there: skep up" >&2; exit 1`,
}

// shell is the order as a command line for a shell.
func (o Order) shell() string {
	words := []string{"sh", "-c", quote(scripts[o.Verb]), o.Verb}
	for _, a := range o.Args {
		words = append(words, quote(a))
	}
	return strings.Join(words, " ")
}

// quote makes one word of any text, for any shell.
func quote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }
