// Command guest is what runs on the hosts of the lab's tests of networks: in containers it is
// what they find and call, and on hosts it is the client outside. The lab builds an image of it
// alone, so it is one static file that knows nothing of the cluster.
//
//	guest serve             answer by HTTP and UDP with who answers, and whom
//	guest get URL [TIME]    print one answer by HTTP
//	guest udp ADDRESS       print one answer by UDP
//	guest lookup NAME…      print what the names stand for
//	guest load URL…         ask without a pause, and say what failed, and when
//	guest work TIME [CODE]  end after a while, with that status
//	guest sleep             do nothing until SIGTERM
//	guest say WORD…         print the words, then do nothing until SIGTERM
//	guest cat [CODE]        print what is typed, and end with its end, with that status
//	guest size              print how large the terminal is, and again whenever that changes
//	guest init              be the first process of a host: bury what nobody waits for
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long one answer is waited for.
const patience = 3 * time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "guest:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		args = []string{"sleep"}
	}
	does, rest := args[0], args[1:]
	if want, ok := map[string]int{"get": 1, "udp": 1, "lookup": 1, "work": 1}[does]; ok && len(rest) < want {
		return fmt.Errorf("%s: want %d arguments", does, want)
	}
	switch does {
	case "serve":
		return serve(ctx, rest)
	case "get":
		return get(ctx, rest[0], rest[1:])
	case "udp":
		return askUDP(rest[0])
	case "lookup":
		return lookup(ctx, rest)
	case "load":
		return load(ctx, rest)
	case "work":
		return work(ctx, rest)
	case "say":
		fmt.Println(strings.Join(rest, " "))
		<-ctx.Done()
		return nil
	case "sleep":
		<-ctx.Done()
		return nil
	case "cat":
		if _, err := io.Copy(os.Stdout, os.Stdin); err != nil {
			return err
		}
		return work(ctx, append([]string{"0s"}, rest...))
	case "size":
		return sizes(ctx)
	case "init":
		return bury(ctx)
	}
	return fmt.Errorf("there is no %s", does)
}

// work ends after a while, with the status that is asked for.
func work(ctx context.Context, args []string) error {
	d, err := time.ParseDuration(args[0])
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return nil
	case <-time.After(d):
	}
	if len(args) > 1 {
		code, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		os.Exit(code)
	}
	return nil
}

// sizes prints the size of the terminal.
func sizes(ctx context.Context) error {
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, syscall.SIGWINCH)
	for {
		size, err := unix.IoctlGetWinsize(int(os.Stdout.Fd()), unix.TIOCGWINSZ)
		if err != nil {
			return fmt.Errorf("ask for the terminal's size: %w", err)
		}
		fmt.Printf("%d x %d\n", size.Row, size.Col)
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// bury is the first process of a host's: it sees the host's own processes in /proc, and
// waits for those whose parent has ended.
func bury(ctx context.Context) error {
	if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGCHLD)
	fmt.Println("ready")
	for {
		for {
			pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
			if err == syscall.EINTR {
				continue
			}
			if err != nil || pid == 0 {
				break
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ended:
		}
	}
}
