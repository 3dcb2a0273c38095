// Command answer answers by TCP on port 80 with its first argument and the caller's address; with "ask" it
// asks an address.
package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) == 3 && os.Args[1] == "ask" {
		conn, err := net.DialTimeout("tcp", os.Args[2], time.Second)
		if err != nil {
			fmt.Println("no answer")
			return
		}
		_ = conn.SetDeadline(time.Now().Add(time.Second))
		fmt.Fprintln(conn, "who?")
		answer, _ := bufio.NewReader(conn).ReadString('\n')
		fmt.Print(answer)
		return
	}
	l, err := net.Listen("tcp", ":80")
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				for in := bufio.NewScanner(conn); in.Scan(); {
					fmt.Fprintln(conn, os.Args[1], conn.RemoteAddr().(*net.TCPAddr).IP)
				}
			}()
		}
	}()
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	<-stop
}
