package main

import (
	"errors"
	"fmt"

	"github.com/docker/cli/cli/command"
	"github.com/docker/docker/api/types/versions"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// server is what must be known of the node to tell whether it supports a flag. Its
// methods ping the node when first called, so they are called only for what carries
// an annotation: a command that needs no node must work without one.
type server interface {
	CurrentVersion() string
	ServerInfo() command.ServerInfo
}

// supported says which commands and flags in use the node is too old for, or isn't
// the right system for. docker/cli annotates them, but leaves the check to its own
// main, which cannot be imported; without it a node would drop such fields in silence.
func supported(cmd *cobra.Command, s server) error {
	var errs []error
	for c := cmd; c != nil; c = c.Parent() {
		if reason := unsupported(c.Annotations["version"], c.Annotations["ostype"], s); reason != "" {
			errs = append(errs, fmt.Errorf("%s %s", cmd.CommandPath(), reason))
		}
	}
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Changed {
			return
		}
		if reason := unsupported(annotation(f, "version"), annotation(f, "ostype"), s); reason != "" {
			errs = append(errs, fmt.Errorf(`"--%s" %s`, f.Name, reason))
		}
	})
	return errors.Join(errs...)
}

// unsupported tells what the node lacks for something that needs at least an API
// version and one operating system; both may be empty.
func unsupported(version, system string, s server) string {
	if version != "" && versions.LessThan(s.CurrentVersion(), version) {
		return fmt.Sprintf("requires API version %s, but the node's API version is %s", version, s.CurrentVersion())
	}
	if system == "" {
		return ""
	}
	if is := s.ServerInfo().OSType; is != "" && is != system {
		return fmt.Sprintf("is only supported on %s, but the node runs on %s", system, is)
	}
	return ""
}

func annotation(f *pflag.Flag, name string) string {
	if v := f.Annotations[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// checkSupportBeforeArgs makes "requires API version" win over "requires at least 1
// argument", as in docker.
func checkSupportBeforeArgs(cmd *cobra.Command, s server) {
	args := cmd.Args
	if args == nil {
		return
	}
	cmd.Args = func(cmd *cobra.Command, given []string) error {
		if err := supported(cmd, s); err != nil {
			return err
		}
		return args(cmd, given)
	}
}
