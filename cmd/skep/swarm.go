package main

//lint:file-ignore SA1019 as in root.go.

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/docker/cli/cli/command"
	"github.com/docker/cli/cli/command/swarm"
	"github.com/docker/cli/cli/streams"
	"github.com/spf13/cobra"
)

// ourWords makes of what docker's commands say, and of texts that docker's clients know word for
// word, what is to be done with skep: on a machine where `docker` speaks to its own engine, a
// `docker swarm join` would go there.
var ourWords = strings.NewReplacer(
	"docker swarm ", "skep swarm ",
	"the Docker daemon", "the skep daemon",
	"the docker daemon", "the skep daemon",
)

// inOurWords is docker's command line with what its commands print put in our words.
type inOurWords struct{ command.Cli }

func (c inOurWords) Out() *streams.Out { return streams.NewOut(replacing{c.Cli.Out()}) }

// replacing passes on what is written in our words. Docker's commands write a sentence at once.
type replacing struct{ io.Writer }

func (r replacing) Write(text []byte) (int, error) {
	if _, err := ourWords.WriteString(r.Writer, string(text)); err != nil {
		return 0, err
	}
	return len(text), nil
}

// newSwarmCommand is docker's group, which prints lines that work here.
func newSwarmCommand(dockerCLI command.Cli) *cobra.Command {
	cmd := swarm.NewSwarmCommand(inOurWords{dockerCLI})
	// This one shows progress on a terminal, and names no command.
	plain := swarm.NewSwarmCommand(dockerCLI)
	for _, group := range []*cobra.Command{cmd, plain} {
		for _, sub := range group.Commands() {
			switch {
			case sub.Name() == "ca" && group == cmd:
				cmd.RemoveCommand(sub)
			case sub.Name() == "ca":
				plain.RemoveCommand(sub)
				cmd.AddCommand(sub)
			case sub.Name() == "join" && group == cmd:
				addTokenFile(sub, dockerCLI)
			}
		}
	}
	return cmd
}

// mostToken bounds what is read of a token's file: one that is no token is given by mistake.
const mostToken = 4096

// tokenSeen is said to who gives a token in the clear, as docker login says of passwords.
const tokenSeen = "WARNING! With --token every user of this machine can read the token while the command runs, and the shell's history keeps it. Use --token-file."

// addTokenFile lets the join token come from a file: on a command line every user of the
// machine can read it, and the shell's history keeps it.
func addTokenFile(join *cobra.Command, dockerCLI command.Cli) {
	var path string
	join.Flags().StringVar(&path, "token-file", "", "File with the token for entry into the swarm, or - for standard input")
	run := join.RunE
	join.RunE = func(cmd *cobra.Command, args []string) error {
		if cmd.Flags().Changed("token") && path == "" {
			fmt.Fprintln(dockerCLI.Err(), tokenSeen)
		}
		if path != "" {
			if cmd.Flags().Changed("token") {
				return errors.New("--token and --token-file exclude each other")
			}
			token, err := readToken(path, dockerCLI.In())
			if err != nil {
				return fmt.Errorf("read join token: %w", err)
			}
			if err := cmd.Flags().Set("token", token); err != nil {
				return err
			}
		}
		return run(cmd, args)
	}
}

func readToken(path string, in io.Reader) (string, error) {
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return "", err
		}
		defer file.Close()
		in = file
	}
	text, err := io.ReadAll(io.LimitReader(in, mostToken+1))
	token := strings.TrimSpace(string(text))
	switch {
	case err != nil:
		return "", err
	case len(text) > mostToken:
		return "", fmt.Errorf("it has more than %d bytes", mostToken)
	case token == "":
		return "", errors.New("it is empty")
	}
	return token, nil
}
