package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// console is Docker's command, in a test, and what serves its API.
type console struct {
	*testing.T
	socket string
	config string // DOCKER_CONFIG of the command
}

// run runs Docker's command against the node and returns all that it printed.
func (c *console) run(args ...string) (string, error) {
	return c.command("docker", args...)
}

// command runs a program whose Docker is the node.
func (c *console) command(program string, args ...string) (string, error) {
	c.Helper()
	ctx, cancel := context.WithTimeout(c.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.WaitDelay = time.Second
	cmd.Env = append(os.Environ(), "DOCKER_HOST="+c.socket, "DOCKER_CONFIG="+c.config, "DOCKER_CONTEXT=", "DOCKER_CLI_HINTS=false")
	output, err := cmd.CombinedOutput()
	return string(output), err
}

// docker runs Docker's command, which must succeed, and returns what it printed.
func (c *console) docker(args ...string) string {
	c.Helper()
	output, err := c.run(args...)
	if err != nil {
		tasks, _ := c.run("node", "ps", "--no-trunc", "--format", "{{.Name}} {{.CurrentState}} {{.Error}}")
		c.Fatalf("docker %s: %v\n%s\nthe tasks:\n%s", strings.Join(args, " "), err, output, tasks)
	}
	return strings.TrimSpace(output)
}

// refused runs Docker's command, which must fail and say so.
func (c *console) refused(says string, args ...string) {
	c.Helper()
	if output, err := c.run(args...); err == nil || !strings.Contains(output, says) {
		c.Errorf("docker %s: %v\n%s\nwant a failure that says %q", strings.Join(args, " "), err, output, says)
	}
}

// eventually waits until the command prints what contains part.
func (c *console) eventually(part string, args ...string) string {
	c.Helper()
	var output string
	if err := until(c.Context(), patience, "docker "+strings.Join(args, " "), func(context.Context) error {
		var err error
		if output, err = c.run(args...); err != nil || !strings.Contains(output, part) {
			return fmt.Errorf("want %q: %v\n%s", part, err, output)
		}
		return nil
	}); err != nil {
		c.Fatal(err)
	}
	return output
}

// object decodes what `docker inspect` prints of one object.
func (c *console) object(args ...string) any {
	c.Helper()
	var list []any
	if err := json.Unmarshal([]byte(c.docker(args...)), &list); err != nil || len(list) != 1 {
		c.Fatalf("docker %s: %d objects, %v", strings.Join(args, " "), len(list), err)
	}
	return list[0]
}

// container is what `docker inspect` says of the container of a service's first task.
func (c *console) container(service string, filter ...string) any {
	c.Helper()
	args := []string{"service", "ps", "-q", "--no-trunc", "--filter", "name=" + service + "."}
	task := strings.Fields(c.docker(append(args, append(filter, service)...)...))
	if len(task) == 0 {
		c.Fatalf("service %s has no task", service)
	}
	id := c.docker("inspect", "--type", "task", "-f", "{{.Status.ContainerStatus.ContainerID}}", task[0])
	return c.object("inspect", "--type", "container", id)
}
