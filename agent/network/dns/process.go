package dns

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"skep/agent/network/helper"
	"skep/cluster"
)

const (
	// lookEvery is how often the file and the links are looked at, if nothing tells of a change,
	// and lookSoon while a bridge that should be there isn't, or a file can't be read.
	lookEvery, lookSoon = time.Second, 50 * time.Millisecond
	// gone is how long the file may be gone or unreadable: then the node has left the cluster, or
	// what is answered isn't true any more: addresses are given to others.
	gone = 30 * time.Second
	// readable is how long a successor waits for a file that it can read: another version's is soon
	// replaced by the daemon that started it.
	readable = 3 * time.Second
	// lastAnswers bounds the end of a process, whose connections may still ask.
	lastAnswers = 10 * time.Second
	// queued is how long a process that ends without a successor reads what has come in.
	queued = 20 * time.Millisecond
)

// ProcessConfig is what Process needs.
type ProcessConfig struct {
	// File is the file of names.
	File string
	// Build tells this program from other versions of it.
	Build string
	// Resolv is the file that says whom the node itself asks (default /etc/resolv.conf).
	Resolv string
	// Now is the clock.
	Now    func() time.Time
	Random *rand.Rand
	Log    *slog.Logger
}

// process answers from a file. Its fields are those of the goroutine that runs it.
type process struct {
	cfg    ProcessConfig
	server *Server
	reader reader
	wake   chan struct{}
	door   chan *net.UnixConn

	names     *Names
	readFrom  os.FileInfo // the file that names are from
	since     time.Time   // when the file was last there and readable
	complaint string
	resolv    os.FileInfo
	resolvers []netip.AddrPort
	open      map[Listen]*sockets
	refused   map[Listen]string
	all       []*sockets // that may still answer
	pending   bool       // something should be there that isn't
	changed   bool       // what is answered from isn't what the server has
}

// Process answers from a file of names, at the addresses that are in it, until ctx ends, another
// process takes over, or the file is gone for long. One that answers from the
// same file already is taken over from: no question is lost.
func Process(ctx context.Context, cfg ProcessConfig) error {
	if cfg.Resolv == "" {
		cfg.Resolv = "/etc/resolv.conf"
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p := &process{
		cfg: cfg, server: NewServer(Config{Random: cfg.Random, Log: cfg.Log}), wake: make(chan struct{}, 1), door: make(chan *net.UnixConn),
		open: make(map[Listen]*sockets), refused: make(map[Listen]string), since: cfg.Now(),
	}
	if err := p.wakeOnChanges(ctx); err != nil {
		cfg.Log.Warn("changes are seen with a second's delay", "err", err)
	}
	l, err := p.start(ctx)
	if err != nil {
		return fmt.Errorf("answer names: %w", err)
	}
	defer l.Close()
	go p.answerDoor(ctx, l)
	cfg.Log.Info("answer names", "file", cfg.File, "build", cfg.Build)
	left := p.run(ctx)
	cfg.Log.Info("no more questions are taken", "cause", left.cause)
	_ = l.Close()
	for _, k := range p.open {
		k.stop(left.reads)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for _, k := range p.all {
			k.serving.Wait()
		}
	}()
	select {
	case <-ended:
	case <-time.After(lastAnswers):
	}
	return nil
}

// start takes over or begins anew, and returns the door. One at a time does so.
func (p *process) start(ctx context.Context) (*net.UnixListener, error) {
	lock, err := helper.Lock(ctx, p.cfg.File+".lock")
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	// Whoever answers already knows more than one who can't read the file.
	for end := p.cfg.Now().Add(readable); p.readNames(); {
		if _, err := helper.WhoIs(p.cfg.File); err != nil {
			break
		}
		if p.cfg.Now().After(end) || !cluster.Sleep(ctx, lookSoon) {
			return nil, cluster.Errorf(cluster.ErrUnavailable, "another process answers, and this one can't: %s", p.complaint)
		}
	}
	taken, done, err := takeOver(p.cfg.File)
	if err != nil {
		p.cfg.Log.Warn("begin anew", "err", err)
	}
	for _, k := range taken {
		p.open[k.at] = k
	}
	p.readResolv()
	p.set()
	for _, k := range taken {
		p.serve(k)
	}
	l, err := helper.OpenDoor(p.cfg.File)
	if err != nil {
		return nil, err
	}
	if err := done(); err != nil {
		p.cfg.Log.Warn("the process before wasn't told", "err", err)
	}
	return l, nil
}

// end is how a process comes to its end: for how long it still reads what has come in.
type end struct {
	cause string
	reads time.Duration
}

func (p *process) run(ctx context.Context) end {
	for {
		p.look()
		if p.cfg.Now().Sub(p.since) >= gone {
			if !exists(p.cfg.File) {
				return end{"the file of names is gone", queued}
			}
			p.names, p.changed = nil, true
			p.set()
		}
		wait := lookEvery
		if p.pending {
			wait = lookSoon
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return end{"stopped", queued}
		case <-p.wake:
		case <-timer.C:
		case conn := <-p.door:
			if p.answer(conn) {
				timer.Stop()
				return end{"another process has taken over", 0}
			}
		}
		timer.Stop()
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// look reads what has changed, and has sockets where they should be.
func (p *process) look() {
	p.pending = p.readNames()
	p.readResolv()
	p.set()
	p.listen()
}

// readNames reads the file if it is another one; again tells that it should be tried again soon.
func (p *process) readNames() (again bool) {
	info, err := os.Stat(p.cfg.File)
	if err == nil {
		if p.readFrom != nil && os.SameFile(p.readFrom, info) && p.readFrom.ModTime().Equal(info.ModTime()) && p.readFrom.Size() == info.Size() {
			p.since = p.cfg.Now()
			return false
		}
		var names *Names
		if names, err = p.reader.file(p.cfg.File); err == nil {
			p.names, p.readFrom, p.since, p.changed, p.complaint = names, info, p.cfg.Now(), true, ""
			return false
		}
	}
	if text := err.Error(); text != p.complaint {
		p.complaint = text
		if !errors.Is(err, fs.ErrNotExist) {
			p.cfg.Log.Warn("answer from the names known before", "err", err)
		}
	}
	return !errors.Is(err, fs.ErrNotExist)
}

// readResolv reads whom the node itself asks.
func (p *process) readResolv() {
	info, err := os.Stat(p.cfg.Resolv)
	if err != nil || p.resolv != nil && os.SameFile(p.resolv, info) && p.resolv.ModTime().Equal(info.ModTime()) {
		return
	}
	text, err := os.ReadFile(p.cfg.Resolv)
	if err != nil {
		return
	}
	p.resolv, p.resolvers, p.changed = info, parseResolv(text), true
}

func parseResolv(text []byte) (resolvers []netip.AddrPort) {
	config, err := dns.ClientConfigFromReader(bytes.NewReader(text))
	if err != nil {
		return nil
	}
	port, err := strconv.ParseUint(config.Port, 10, 16)
	if err != nil {
		return nil
	}
	for _, s := range config.Servers {
		if addr, err := netip.ParseAddr(s); err == nil && len(resolvers) < 3 {
			resolvers = append(resolvers, netip.AddrPortFrom(addr, uint16(port)))
		}
	}
	return resolvers
}

// set gives the server what has changed.
func (p *process) set() {
	if !p.changed {
		return
	}
	p.changed = false
	if p.names == nil || len(p.names.Resolvers) > 0 {
		p.server.Set(p.names)
		return
	}
	names := *p.names
	names.Resolvers = p.resolvers
	p.server.Set(&names)
}

// listen has sockets at each Listen whose bridge is there, and no others.
func (p *process) listen() {
	if p.names == nil {
		return
	}
	links := make(map[string]int)
	all, err := net.Interfaces()
	if err != nil {
		p.cfg.Log.Warn("list links", "err", err)
		p.pending = true
		return
	}
	for _, link := range all {
		links[link.Name] = link.Index
	}
	wanted := make(map[Listen]bool, len(p.names.Listen))
	for _, at := range p.names.Listen {
		link := links[at.Bridge]
		if at.Bridge != "" && link == 0 {
			p.pending = true
			continue
		}
		if !at.Addr.IsValid() {
			continue
		}
		wanted[at] = true
		if k := p.open[at]; k != nil {
			if k.link == link && !k.broken() {
				continue
			}
			p.close(k)
		}
		k, err := bind(at, link)
		if err != nil {
			p.pending = true
			if p.refused[at] != err.Error() {
				p.refused[at] = err.Error()
				p.cfg.Log.Warn("no names at an address", "addr", at.Addr.String(), "bridge", at.Bridge, "err", err)
			}
			continue
		}
		delete(p.refused, at)
		p.open[at] = k
		p.serve(k)
	}
	for at, k := range p.open {
		if !wanted[at] {
			p.close(k)
		}
	}
}

func (p *process) serve(k *sockets) {
	p.all = append(p.all, k)
	k.serve(p.server, func() { cluster.Notify(p.wake) })
}

// close closes sockets at once, since others may be opened in their place.
func (p *process) close(k *sockets) {
	delete(p.open, k.at)
	_, _ = k.packets.Close(), k.conns.Close()
	k.stop(0)
	for i, other := range p.all {
		if other == k {
			p.all = append(p.all[:i], p.all[i+1:]...)
			break
		}
	}
}

// answerDoor brings whoever comes to the door to the process's own goroutine.
func (p *process) answerDoor(ctx context.Context, l *net.UnixListener) {
	for {
		conn, err := l.AcceptUnix()
		if err != nil {
			if errors.Is(err, net.ErrClosed) || !cluster.Sleep(ctx, lookSoon) {
				return
			}
			continue
		}
		select {
		case p.door <- conn:
		case <-ctx.Done():
			_ = conn.Close()
			return
		}
	}
}

// answer answers at the door, and tells whether another process has taken over.
func (p *process) answer(conn *net.UnixConn) bool {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(helper.DoorLimit))
	var ask doorAsk
	if _, err := helper.Hear(conn, &ask); err != nil {
		return false
	}
	if !ask.Take {
		_ = helper.Say(conn, doorAnswer{PID: os.Getpid(), Build: p.cfg.Build}, nil)
		return false
	}
	open := make([]*sockets, 0, len(p.open))
	for _, k := range p.open {
		open = append(open, k)
	}
	taken, err := handOver(conn, p.cfg.Build, open)
	if err != nil {
		p.cfg.Log.Warn("nobody took over after all", "err", err)
	}
	return taken
}

// wakeOnChanges has the process look when the file is replaced, and when links or addresses
// come and go.
func (p *process) wakeOnChanges(ctx context.Context) error {
	files, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err == nil {
		p.wakeOn(ctx, files)
		_, err = unix.InotifyAddWatch(files, filepath.Dir(p.cfg.File), unix.IN_MOVED_TO|unix.IN_DELETE)
	}
	links, err2 := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err2 == nil {
		p.wakeOn(ctx, links)
		err2 = unix.Bind(links, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: unix.RTMGRP_LINK})
	}
	return errors.Join(err, err2)
}

// wakeOn wakes the process when there is something to read, whatever it is.
func (p *process) wakeOn(ctx context.Context, fd int) {
	file := os.NewFile(uintptr(fd), "changes")
	context.AfterFunc(ctx, func() { _ = file.Close() })
	go func() {
		buf := make([]byte, 64<<10)
		for {
			if _, err := file.Read(buf); err != nil && !errors.Is(err, unix.ENOBUFS) {
				return
			}
			cluster.Notify(p.wake)
		}
	}()
}
