package linux

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"

	"skep/cluster"
)

// The states of sockets in /proc/net/tcp and /proc/net/udp that take what comes from anybody: TCP's LISTEN, and of UDP
// what isn't connected.
const (
	tcpListens = "0A"
	udpListens = "07"
)

// Listens tells whether a program in the network namespace of a process listens at the target of one of these ports,
// by TCP or UDP. It says yes where that can't be known: the process isn't there, or all ports are SCTP's.
func Listens(pid int, ports []cluster.PublishedPort) bool {
	dir, asked := fmt.Sprintf("/proc/%d/net/", pid), false
	for protocol, state := range map[string]string{"tcp": tcpListens, "udp": udpListens} {
		targets := map[uint16]bool{}
		for _, p := range ports {
			if p.Protocol == protocol {
				targets[p.Target] = true
			}
		}
		if len(targets) == 0 {
			continue
		}
		asked = true
		found, err := hasSocket(dir+protocol, state, targets)
		if found || err != nil {
			return true
		}
		// There is none where the kernel has no IPv6.
		if found, err := hasSocket(dir+protocol+"6", state, targets); found && err == nil {
			return true
		}
	}
	return !asked
}

// hasSocket tells whether a table of sockets has one in that state at one of these local ports.
func hasSocket(file, state string, ports map[uint16]bool) (bool, error) {
	table, err := os.Open(file)
	if err != nil {
		return false, err
	}
	defer table.Close()
	lines := bufio.NewScanner(table)
	for lines.Scan() {
		fields := strings.Fields(lines.Text()) // sl, local address, remote address, state, …
		if len(fields) < 4 || fields[3] != state {
			continue
		}
		_, hex, _ := strings.Cut(fields[1], ":")
		if port, err := strconv.ParseUint(hex, 16, 16); err == nil && ports[uint16(port)] {
			return true, nil
		}
	}
	return false, lines.Err()
}
