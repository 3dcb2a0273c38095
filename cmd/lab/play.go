package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

// patience is how long a command with ~ may take to show what is expected.
const patience = 40 * time.Second

// player plays a story on a cluster of processes.
type player struct {
	cluster *processes
	out     io.Writer
	// cli is "docker", or "skep" to say the swarm's part with our own command.
	cli string
	// speakTo is the node whose socket the commands are sent to.
	speakTo *node
	killed  *node
}

// play runs the steps in order and stops at the first that isn't as it should be.
func (p *player) play(ctx context.Context, steps []step) error {
	for _, s := range steps {
		var err error
		s.expected = slices.Clone(s.expected)
		for i, line := range s.expected {
			s.expected[i] = p.translate(line)
		}
		switch s.kind {
		case '#':
			fmt.Fprintf(p.out, "\n%s\n%s\n", s.text, strings.Repeat("=", len(s.text)))
		case '>':
			fmt.Fprintln(p.out, s.text)
		case '$':
			err = p.once(ctx, s)
		case '~':
			err = p.repeated(ctx, s)
		case '!':
			fmt.Fprintf(p.out, "\n--> %s\n", s.text)
			act := acts[s.text]
			if act == nil {
				return fmt.Errorf("story line %d: nobody knows how to %q", s.line, s.text)
			}
			err = act(ctx, p)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// once runs a command and shows and checks what it prints.
func (p *player) once(ctx context.Context, s step) error {
	command := p.translate(s.text)
	fmt.Fprintln(p.out, "\n$ "+command)
	output, err := p.shell(ctx, command)
	fmt.Fprint(p.out, output)
	if err != nil {
		return fmt.Errorf("story line %d: $ %s: %w", s.line, command, err)
	}
	return s.check(output)
}

// repeated runs a command until it prints what is expected, and shows the last answer.
func (p *player) repeated(ctx context.Context, s step) error {
	command := p.translate(s.text)
	var output string
	err := until(ctx, patience, "what line "+fmt.Sprint(s.line)+" of the story says", func(ctx context.Context) error {
		answer, err := p.shell(ctx, command)
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("$ %s: %w\n%s", command, err, answer)
		} else if err != nil {
			return err
		}
		output = answer
		return s.check(answer)
	})
	fmt.Fprintf(p.out, "\n$ %s\n%s", command, output)
	return err
}

// swarmCommand is what skep can say as well as docker.
var swarmCommand = regexp.MustCompile(`\bdocker((?: -H \S+)?) (service|node|stack|swarm|secret|config|network|info|version|events|inspect)\b`)

// translate has a command said by the command line that is played with, or a line of its output.
func (p *player) translate(text string) string {
	if p.cli == "docker" {
		return text
	}
	return swarmCommand.ReplaceAllString(text, p.cli+"$1 $2")
}

// shell runs a command line as a user would, with DOCKER_HOST set to a node's socket,
// and returns what stands on the terminal then.
func (p *player) shell(ctx context.Context, command string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", command)
	cmd.Env = append(os.Environ(), "PATH="+p.cluster.bin+string(filepath.ListSeparator)+os.Getenv("PATH"),
		"DOCKER_HOST="+p.speakTo.socket(), "SKEP_HOST="+p.speakTo.socket(), "DOCKER_CLI_HINTS=false")
	for i, n := range p.cluster.nodes {
		cmd.Env = append(cmd.Env, fmt.Sprintf("N%d=%s", i+1, n.socket()), fmt.Sprintf("A%d=%s", i+1, n.addr))
	}
	// The shell's children go with it when time is up.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	shown, err := onTerminal(cmd)
	if err != nil {
		err = fmt.Errorf("%w: %s", err, strings.TrimSpace(stderr.String()))
	}
	return shown, err
}

// newPlayer starts the nodes of a story: five, of which three will be managers.
func newPlayer(ctx context.Context, l lab, driver, cli string, out io.Writer) (*player, error) {
	cluster, err := newProcesses(ctx, l, driver, 5)
	if err != nil {
		return nil, err
	}
	return &player{cluster: cluster, out: out, cli: cli, speakTo: cluster.nodes[0]}, nil
}

// runDemo builds the images and plays the story for somebody to read.
func runDemo(ctx context.Context, l lab, _ []string) (err error) {
	start := time.Now()
	engine, driver, cli := engineAnswers(ctx, l.engine), "docker", "docker"
	if engine {
		fmt.Printf("A Docker Engine answers at %s: the containers below are real.\n", l.engine)
		if err := buildTimecheck(ctx, l); err != nil {
			return err
		}
	} else {
		driver = "simulate"
		fmt.Printf("No Docker Engine answers at %s: the tasks below are simulated, and what needs containers is left out.\n", l.engine)
	}
	if _, err := exec.LookPath("docker"); err != nil {
		if engine {
			return errors.New("there is an engine, but no docker command: install docker.io or docker-cli, or hide the engine with -engine unix:///nowhere")
		}
		cli = "skep"
		fmt.Println("There is no docker command here: skep speaks instead.")
	}
	steps, err := parseStory(storyText, engine)
	if err != nil {
		return err
	}
	p, err := newPlayer(ctx, l, driver, cli, os.Stdout)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.cluster.close()) }()
	fmt.Printf("To look at it meanwhile, once there is a cluster, in another terminal: %s\n", consoleCommand(l, p.cluster.nodes[1]))
	if err := p.play(ctx, steps); err != nil {
		return err
	}
	fmt.Printf("\nAll of it was so. It took %v.\n", time.Since(start).Round(time.Second))
	return nil
}
