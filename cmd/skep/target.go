package main

import (
	"os"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/flags"
	"github.com/spf13/pflag"
)

const (
	// defaultHost is where a daemon listens and where commands look for it.
	defaultHost = "unix:///run/skep/skep.sock"
	// hostVariable overrides defaultHost for commands.
	hostVariable = "SKEP_HOST"
)

// installTarget changes the options that docker/cli installed so that nothing of the
// user's docker set-up (contexts, DOCKER_HOST, DOCKER_TLS*) decides which cluster a
// skep command speaks to: a `skep service rm` must never hit the swarm that `docker`
// happens to point at. Registry logins stay docker's: both read the same config file.
func installTarget(fs *pflag.FlagSet, opts *flags.ClientOptions) {
	host := fs.Lookup("host")
	host.Usage = "Node to speak to (default $" + hostVariable + ", else " + defaultHost + ")"
	fs.Lookup("context").Hidden = true
	// docker/cli takes these defaults from DOCKER_TLS and DOCKER_TLS_VERIFY.
	for _, name := range []string{"tls", flags.FlagTLSVerify} {
		f := fs.Lookup(name)
		f.DefValue = "false"
		_ = f.Value.Set(f.DefValue)
	}
}

// setTarget fills in the host. With one given, docker/cli never looks at a context.
func setTarget(opts *flags.ClientOptions) error {
	if opts.Context != "" {
		return cli.StatusError{StatusCode: 125, Status: "skep has no contexts: name the node with --host or " + hostVariable}
	}
	if len(opts.Hosts) == 0 {
		host := os.Getenv(hostVariable)
		if host == "" {
			host = defaultHost
		}
		opts.Hosts = []string{host}
	}
	return nil
}
