package main

import (
	"errors"
	"net/url"
	"os"

	"github.com/docker/cli/cli/command"

	"skep/cluster"
)

const messageUsage = `Why this is done, for "skep service history"`

// messageFlag is --message of docker's own commands. Their requests have no place for it, so it
// goes with all of the command as a header, which docker's client takes from the configuration;
// the file isn't written. That happens when the flag is read, since the client is made soon after.
type messageFlag struct {
	cli  command.Cli
	text string
}

func (f *messageFlag) String() string { return f.text }
func (f *messageFlag) Type() string   { return "string" }

// Set takes the message.
func (f *messageFlag) Set(text string) error {
	if err := cluster.CheckMessage(text); err != nil {
		return err
	}
	if os.Getenv("DOCKER_CUSTOM_HEADERS") != "" {
		return errors.New("it can't be sent while DOCKER_CUSTOM_HEADERS is set: unset that for this command")
	}
	f.text = text
	file := f.cli.ConfigFile()
	if file.HTTPHeaders == nil {
		file.HTTPHeaders = map[string]string{}
	}
	file.HTTPHeaders[cluster.HeaderMessage] = url.QueryEscape(text)
	return nil
}
