package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"html/template"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	"github.com/docker/docker/client"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"golang.org/x/term"

	"skep/cluster"
	"skep/cluster/api/console"
)

// The limits of the console's listener: a browser has few connections.
const (
	consoleHeaderTimeout = 10 * time.Second
	consoleIdleTimeout   = 2 * time.Minute
	consoleMaxHeader     = 32 << 10
	consoleShutdown      = time.Second
)

func newConsoleCommand(dockerCLI command.Cli) *cobra.Command {
	var write, noBrowser bool
	var port uint16
	cmd := &cobra.Command{
		Use:   "console [OPTIONS]",
		Short: "Open the cluster's pages in a browser",
		Long: `Open the cluster's pages in a browser.

Prints an address of this machine that has a code in it, and opens it where there is a
desktop. The code is good for a minute and for one browser; Enter gives another. What the
pages show is the asked manager's own copy of the database, so they are there without a
leader, too. The console ends with this command.

On a machine that is reached by ssh, give the same --port to "ssh -L PORT:127.0.0.1:PORT".`,
		Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runConsole(cmd.Context(), dockerCLI, port, write, !noBrowser)
		},
	}
	cmd.Flags().BoolVar(&write, "write", false, `Let the pages change the cluster: scale, update, roll back, drain, activate, restart ("skep cluster update --console=write" allows it)`)
	cmd.Flags().BoolVar(&noBrowser, "no-browser", false, "Only print the address")
	cmd.Flags().Uint16Var(&port, "port", 0, "Port of this machine's loopback address (default: any that is free)")
	return cmd
}

func runConsole(ctx context.Context, dockerCLI command.Cli, port uint16, write, browser bool) error {
	c := dockerCLI.Client()
	to, err := nodeURL(c)
	if err != nil {
		return err
	}
	link, err := newConsoleCode(ctx, c, write) // Who may not have one needn't wait for a listener.
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))))
	if err != nil {
		return fmt.Errorf("open the console's port: %w", err)
	}
	_, at, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	address := "http://127.0.0.1:" + at + "/#"
	if os.Getenv("SSH_CONNECTION") != "" {
		fmt.Fprintf(dockerCLI.Out(), "From where you are: ssh -L %s:127.0.0.1:%s %s, then\n", at, at, hostname())
	}
	fmt.Fprintln(dockerCLI.Out(), address+link)
	if browser {
		forget := openBrowser(ctx, address+link)
		defer forget()
	}
	proxy := &console.Proxy{
		Port: at, To: to, Transport: c.HTTPClient().Transport, Now: time.Now, Random: rand.Reader,
		Redeem: func(ctx context.Context, code string) (console.Access, error) {
			var grant cluster.ConsoleGrant
			err := ask(ctx, c, http.MethodPost, "console/redeem", cluster.ConsoleCode{Code: code}, &grant)
			return console.Access{Grant: grant.Grant}, err
		},
	}
	if dockerCLI.In().IsTerminal() && term.IsTerminal(int(os.Stdout.Fd())) {
		fmt.Fprintln(dockerCLI.Out(), "Enter gives another address, Ctrl-C ends.")
		// It ends with the process: a read of the terminal can't be broken off.
		go again(ctx, dockerCLI, write, address)
	}
	return serveConsole(ctx, listener, proxy)
}

// newConsoleCode asks the node for a code.
func newConsoleCode(ctx context.Context, c client.APIClient, write bool) (string, error) {
	var code cluster.ConsoleCode
	err := ask(ctx, c, http.MethodPost, "console/session", cluster.ConsoleRequest{Write: write}, &code)
	return code.Code, err
}

// again prints another address at each Enter.
func again(ctx context.Context, dockerCLI command.Cli, write bool, address string) {
	for lines := bufio.NewScanner(dockerCLI.In()); lines.Scan() && ctx.Err() == nil; {
		if code, err := newConsoleCode(ctx, dockerCLI.Client(), write); err != nil {
			fmt.Fprintln(dockerCLI.Err(), err)
		} else {
			fmt.Fprintln(dockerCLI.Out(), address+code)
		}
	}
}

// serveConsole serves until ctx ends.
func serveConsole(ctx context.Context, listener net.Listener, handler http.Handler) error {
	base, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	server := &http.Server{
		Handler: handler, ReadHeaderTimeout: consoleHeaderTimeout, IdleTimeout: consoleIdleTimeout, MaxHeaderBytes: consoleMaxHeader,
		BaseContext: func(net.Listener) context.Context { return base }, ErrorLog: log.New(io.Discard, "", 0),
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve the console: %w", err)
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		cut() // Streams last for ever.
		wait, cancel := context.WithTimeout(context.WithoutCancel(ctx), consoleShutdown)
		defer cancel()
		if server.Shutdown(wait) != nil {
			_ = server.Close() // What is left doesn't end by itself.
		}
		return nil
	})
	return group.Wait()
}

// nodeURL is where requests to the node go by the Docker client's transport.
func nodeURL(c client.APIClient) (*url.URL, error) {
	host, err := client.ParseHostURL(c.DaemonHost())
	if err != nil {
		return nil, err
	}
	if host.Scheme == "tcp" {
		return &url.URL{Scheme: "http", Host: host.Host}, nil
	}
	return &url.URL{Scheme: "http", Host: "skep"}, nil
}

// openBrowser shows the address where there is a desktop. It stands in a file that only this
// user can read, since everybody on the machine can see the arguments of a process. The
// function removes the file.
func openBrowser(ctx context.Context, address string) (forget func()) {
	forget = func() {}
	if os.Getenv("DISPLAY") == "" && os.Getenv("WAYLAND_DISPLAY") == "" {
		return forget
	}
	opener, err := exec.LookPath("xdg-open")
	if err != nil {
		return forget
	}
	dir, err := os.MkdirTemp("", "skep-console-")
	if err != nil {
		return forget
	}
	forget = func() { _ = os.RemoveAll(dir) }
	path := filepath.Join(dir, "open.html")
	page := `<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0; url=` + template.HTMLEscapeString(address) + `">`
	if os.WriteFile(path, []byte(page), 0o600) == nil {
		_ = exec.CommandContext(ctx, opener, path).Start() // The address is printed, too.
	}
	return forget
}

func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return "HOST"
	}
	return name
}
