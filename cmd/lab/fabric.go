package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

// fabric is the network of an experiment: a switch in this process, to which each
// namespace is connected by a device of its own. So a link can be cut, one way too,
// made slow or lossy on every kernel, at once, and without a trace on the machine.
type fabric struct {
	mu     sync.Mutex // guards the fields below
	ports  map[byte]*port
	faults []linkFault
	moves  int // how many addresses were given to nodes in the place of others
	closed bool
}

// port is one namespace's end.
type port struct {
	name   string
	number byte
	device *os.File
	// slow are the frames on their way from here to other ports, while links are slow.
	slow map[byte]chan frame
}

type frame struct {
	due  time.Time
	data []byte
}

// linkFault is what a step did to the links of some nodes.
type linkFault struct {
	nodes []string
	// in and out tell which way packets are cut between the nodes and the rest.
	in, out       bool
	delay, jitter time.Duration
	loss          float64
}

// link is how packets get from one node to another.
type link struct {
	cut           bool
	delay, jitter time.Duration
	loss          float64
}

// linkBetween works out how packets get from one node to another under the faults.
func linkBetween(from, to string, faults []linkFault) link {
	var l link
	for _, f := range faults {
		a, b := slices.Contains(f.nodes, from), slices.Contains(f.nodes, to)
		if a && !b && f.out || b && !a && f.in {
			l.cut = true
		}
		if a || b {
			l.delay += f.delay
			l.jitter += f.jitter
			l.loss = 1 - (1-l.loss)*(1-f.loss)
		}
	}
	return l
}

// healed are the faults that are left when the nodes are freed of them.
func healed(faults []linkFault, nodes []string) []linkFault {
	var left []linkFault
	for _, f := range faults {
		f.nodes = slices.DeleteFunc(slices.Clone(f.nodes), func(n string) bool { return slices.Contains(nodes, n) })
		if len(f.nodes) > 0 {
			left = append(left, f)
		}
	}
	return left
}

const (
	fabricPrefix = "10.77.0."
	// frameSize is more than any frame of Ethernet's.
	frameSize = 2048
	// slowFrames is how many frames a slow link holds; what comes then is lost, as in any switch.
	slowFrames = 2048
	// most is how many nodes fit: the number is the last byte of their addresses.
	mostNodes = 250
)

func newFabric() *fabric { return &fabric{ports: map[byte]*port{}} }

// attach connects the namespace as a node with that name, and returns its address.
func (f *fabric) attach(n *namespace, name string) (addr string, err error) {
	f.mu.Lock()
	number := byte(len(f.ports) + 1)
	f.mu.Unlock()
	if int(number) > mostNodes {
		return "", fmt.Errorf("connect %s: the lab's network has room for %d nodes", name, mostNodes)
	}
	return f.plug(n, name, number)
}

// replug connects a namespace in the place of the one that the node of that name had.
func (f *fabric) replug(n *namespace, name string) (addr string, err error) {
	f.mu.Lock()
	number := byte(0)
	for _, p := range f.ports {
		if p.name == name {
			number = p.number
			_ = p.device.Close()
		}
	}
	f.mu.Unlock()
	if number == 0 {
		return "", fmt.Errorf("connect %s again: it wasn't connected", name)
	}
	return f.plug(n, name, number)
}

func (f *fabric) plug(n *namespace, name string, number byte) (addr string, err error) {
	addr = fmt.Sprintf("%s%d", fabricPrefix, number)
	var device *os.File
	err = n.do(func() error {
		device, err = openTap("eth0")
		return err
	})
	if err != nil {
		return "", fmt.Errorf("connect %s: %w", name, err)
	}
	for _, args := range [][]string{
		{"link", "set", "lo", "up"},
		{"link", "set", "eth0", "address", fmt.Sprintf("02:00:00:00:00:%02x", number)},
		{"addr", "add", addr + "/24", "dev", "eth0"},
		{"link", "set", "eth0", "up"},
		{"route", "add", "default", "via", fabricPrefix + "254"}, // Docker Swarm wants to see one
	} {
		if err := n.tool("ip", args...); err != nil {
			device.Close()
			return "", err
		}
	}
	p := &port{name: name, number: number, device: device, slow: map[byte]chan frame{}}
	f.mu.Lock()
	f.ports[number] = p
	f.mu.Unlock()
	go f.carry(p)
	return addr, nil
}

// move gives a node's namespace another address in the place of one.
func (f *fabric) move(n *namespace, from string) (addr string, err error) {
	f.mu.Lock()
	f.moves++
	last := mostNodes - f.moves // The first ones go upwards.
	taken := last <= len(f.ports)
	f.mu.Unlock()
	if taken {
		return "", errors.New("the lab's network has no address left")
	}
	addr = fmt.Sprintf("%s%d", fabricPrefix, last)
	for _, args := range [][]string{
		{"addr", "del", from + "/24", "dev", "eth0"},
		{"addr", "add", addr + "/24", "dev", "eth0"},
		{"route", "replace", "default", "via", fabricPrefix + "254"}, // It went with the address.
	} {
		if err := n.tool("ip", args...); err != nil {
			return "", err
		}
	}
	return addr, nil
}

// openTap makes a network device whose frames are read and written here.
func openTap(name string) (*os.File, error) {
	fd, err := syscall.Open("/dev/net/tun", syscall.O_RDWR|syscall.O_CLOEXEC|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	const setInterface, tap, plain = 0x400454ca, 0x0002, 0x1000
	var request struct {
		name  [syscall.IFNAMSIZ]byte
		flags uint16
		_     [22]byte
	}
	copy(request.name[:], name)
	request.flags = tap | plain
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), setInterface, uintptr(unsafe.Pointer(&request))); errno != 0 {
		syscall.Close(fd)
		return nil, fmt.Errorf("make a network device: %w", errno)
	}
	return os.NewFile(uintptr(fd), "/dev/net/tun"), nil
}

// carry takes the frames of a port to where they go, until the device is closed.
func (f *fabric) carry(from *port) {
	buffer := make([]byte, frameSize)
	for {
		n, err := from.device.Read(buffer)
		if err != nil {
			return
		}
		if n < 14 {
			continue
		}
		f.forward(from, buffer[:n])
	}
}

// forward sends a frame to the port of its address, or to all others.
func (f *fabric) forward(from *port, data []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return
	}
	if group := data[0]&1 != 0; group {
		for _, to := range f.ports {
			if to != from {
				f.sendLocked(from, to, data)
			}
		}
		return
	}
	if to := f.ports[data[5]]; to != nil && data[0] == 2 {
		f.sendLocked(from, to, data)
	}
}

// sendLocked sends a frame as the link between the two ports is. Writing doesn't wait:
// a device that is full drops.
func (f *fabric) sendLocked(from, to *port, data []byte) {
	l := link{}
	if len(f.faults) > 0 {
		l = linkBetween(from.name, to.name, f.faults)
	}
	switch {
	case l.cut || l.loss > 0 && rand.Float64() < l.loss:
		return
	case l.delay == 0 && l.jitter == 0 && from.slow[to.number] == nil:
		_, _ = to.device.Write(data)
		return
	}
	// Once a link has been slow its frames go through its queue, so that none overtakes another.
	queue := from.slow[to.number]
	if queue == nil {
		queue = make(chan frame, slowFrames)
		from.slow[to.number] = queue
		go deliver(queue, to)
	}
	late := l.delay
	if l.jitter > 0 {
		late += time.Duration(rand.Int64N(int64(2*l.jitter))) - l.jitter
	}
	select {
	case queue <- frame{time.Now().Add(max(0, late)), slices.Clone(data)}:
	default:
	}
}

// deliver hands the frames of a slow link over when they are due.
func deliver(queue <-chan frame, to *port) {
	for f := range queue {
		time.Sleep(time.Until(f.due))
		_, _ = to.device.Write(f.data)
	}
}

// disturb adds a fault; heal takes the nodes out of all of them.
func (f *fabric) disturb(fault linkFault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults = append(f.faults, fault)
}

func (f *fabric) heal(nodes []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults = healed(f.faults, nodes)
}

func (f *fabric) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	for _, p := range f.ports {
		p.device.Close()
		for _, queue := range p.slow {
			close(queue)
		}
	}
}
