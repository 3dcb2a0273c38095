// Command probe is what the containers of the agent's tests run: it says hello,
// waits, and says goodbye, as its flags tell.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

const healthy = "/healthy"

func main() {
	exitAfter := flag.Duration("exit-after", 0, "exit by itself after this time; 0: never")
	code := flag.Int("code", 0, "what to exit with then")
	ignore := flag.Bool("ignore-term", false, "don't obey SIGTERM")
	every := flag.Duration("every", 0, "write a line this often")
	healthyAfter := flag.Duration("healthy-after", 0, "pass the health check after this time; SIGUSR1 ends that")
	check := flag.Bool("check", false, "be the health check")
	env := flag.Bool("env", false, "print the environment, the hostname and the arguments, and exit")
	cat := flag.Bool("cat", false, "print the files that the arguments name, with owner and mode, first")
	flag.Parse()
	if *check {
		if _, err := os.Stat(healthy); err != nil {
			os.Exit(1)
		}
		return
	}
	if *env {
		hostname, _ := os.Hostname()
		fmt.Println("hostname", hostname)
		for _, entry := range os.Environ() {
			fmt.Println("env", entry)
		}
		for _, arg := range flag.Args() {
			fmt.Println("arg", arg)
		}
		return
	}
	if *cat {
		for _, path := range flag.Args() {
			show(path)
		}
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGUSR1)
	fmt.Println("hello")

	var exit, tick, well <-chan time.Time
	if *exitAfter > 0 {
		exit = time.After(*exitAfter)
	}
	if *every > 0 {
		tick = time.Tick(*every)
	}
	if *healthyAfter > 0 {
		well = time.After(*healthyAfter)
	}
	for n := 1; ; {
		select {
		case <-exit:
			fmt.Fprintln(os.Stderr, "bye")
			os.Exit(*code)
		case <-tick:
			fmt.Println("line", n)
			n++
		case <-well:
			os.WriteFile(healthy, nil, 0o600)
		case s := <-signals:
			switch {
			case s == syscall.SIGUSR1:
				os.Remove(healthy)
			case s == syscall.SIGINT, !*ignore:
				fmt.Fprintln(os.Stderr, "bye on", s)
				os.Exit(0)
			}
		}
	}
}

// show prints a file as one line: path, user:group, mode, where it is, content.
func show(path string) {
	data, err := os.ReadFile(path)
	info, failed := os.Stat(path)
	if err != nil || failed != nil {
		fmt.Println("file", path, err, failed)
		return
	}
	stat := info.Sys().(*syscall.Stat_t)
	var at syscall.Statfs_t
	syscall.Statfs(path, &at)
	write := "read-only"
	if f, err := os.OpenFile(path, os.O_WRONLY, 0); err == nil {
		f.Close()
		write = "writable"
	}
	fmt.Printf("file %s %d:%d %o fs=%x %s %q\n", path, stat.Uid, stat.Gid, info.Mode().Perm(), uint32(at.Type), write, data)
}
