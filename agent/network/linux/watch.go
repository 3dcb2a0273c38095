package linux

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Watch calls changed at the kernel's news of links, addresses, rules and nftables. Neighbours
// aren't among them: every one that is heard of or forgotten on the machine would be news, and
// skep's are permanent; nor is what Apply does with nftables, since a look after each change of one service
// would cost hundreds of times as much.
func (p *Plane) Watch(ctx context.Context, changed func()) error {
	links, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{Groups: unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR | 1<<(unix.RTNLGRP_IPV4_RULE-1) | 1<<(unix.RTNLGRP_IPV6_RULE-1)})
	if err != nil {
		return fmt.Errorf("listen to the kernel: %w", err)
	}
	tables, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{Groups: 1 << (unix.NFNLGRP_NFTABLES - 1)})
	if err != nil {
		_ = links.Close()
		return fmt.Errorf("listen to the kernel: %w", err)
	}
	p.own.forget()
	sockets := []*netlink.Conn{links, tables}
	ended := make(chan error, len(sockets))
	for _, socket := range sockets {
		go func() { ended <- p.hear(socket, changed) }()
	}
	var failed error
	select {
	case <-ctx.Done():
		failed = ctx.Err()
	case err := <-ended:
		failed = fmt.Errorf("listen to the kernel: %w", err)
		ended <- err
	}
	for _, socket := range sockets {
		_ = socket.Close()
	}
	for range sockets {
		<-ended
	}
	return failed
}

// hear calls changed for what a socket hears until it is closed.
func (p *Plane) hear(socket *netlink.Conn, changed func()) error {
	for {
		news, err := socket.Receive()
		if news = slices.DeleteFunc(news, func(m netlink.Message) bool { return p.isOwn(m) || isLoose(m) }); err == nil && len(news) == 0 {
			continue
		}
		if err != nil && !errors.Is(err, unix.ENOBUFS) { // News that were lost are news.
			return err
		}
		if err != nil || slices.ContainsFunc(news, ofFirewall) {
			p.stale.Store(true)
		}
		changed()
	}
}

// mine has Watch know a transaction's socket.
func (p *Plane) mine(c *netlink.Conn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var addr unix.Sockaddr
	failed := raw.Control(func(fd uintptr) { addr, err = unix.Getsockname(int(fd)) })
	if a, is := addr.(*unix.SockaddrNetlink); is {
		p.own.expect(a.Pid)
	}
	return errors.Join(failed, err)
}

// isOwn tells whether news of nftables are of a transaction of this Plane's.
func (p *Plane) isOwn(m netlink.Message) bool {
	return int(m.Header.Type)>>8 == unix.NFNL_SUBSYS_NFTABLES && p.own.is(m.Header.PID, int(m.Header.Type)&0xff == unix.NFT_MSG_NEWGEN)
}

// isLoose tells whether news are of a container's cable that is in no bridge: each container that starts or ends
// has several of them.
func isLoose(m netlink.Message) bool {
	if m.Header.Type != unix.RTM_NEWLINK && m.Header.Type != unix.RTM_DELLINK {
		return false
	}
	attrs, _, err := parseLink(m.Data)
	if err != nil {
		return false
	}
	cable := false
	for _, a := range attrs {
		switch a.Attr.Type &^ unix.NLA_F_NESTED {
		case unix.IFLA_MASTER:
			return false
		case unix.IFLA_LINKINFO:
			info, err := attrsOf(a.Value)
			cable = err == nil && slices.ContainsFunc(info, func(a syscall.NetlinkRouteAttr) bool {
				return a.Attr.Type == unix.IFLA_INFO_KIND && strings.TrimRight(string(a.Value), "\x00") == "veth"
			})
		}
	}
	return cable
}

// ownNews are this Plane's transactions whose news Watch may not have heard yet: how many, by their
// sockets' numbers. The kernel gives a number again as soon as it is free, so several of them may
// have the same.
type ownNews struct {
	mu      sync.Mutex // guards the field below
	pending map[uint32]int
}

func (o *ownNews) expect(socket uint32) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.pending == nil {
		o.pending = map[uint32]int{}
	}
	o.pending[socket]++
}

// is tells whether news of a socket are of one's own. The last of a transaction's is of the new
// generation of all rules; the number may be another's afterwards.
func (o *ownNews) is(socket uint32, last bool) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	own := o.pending[socket] > 0
	if own && last {
		if o.pending[socket]--; o.pending[socket] == 0 {
			delete(o.pending, socket)
		}
	}
	return own
}

func (o *ownNews) forget() {
	o.mu.Lock()
	defer o.mu.Unlock()
	clear(o.pending)
}

// ofFirewall tells whether news of the kernel's are of a table of nftables that isn't skep's.
func ofFirewall(m netlink.Message) bool {
	const header = 4
	kind := int(m.Header.Type) & 0xff
	if int(m.Header.Type)>>8 != unix.NFNL_SUBSYS_NFTABLES || len(m.Data) < header || kind == unix.NFT_MSG_NEWGEN {
		return false
	}
	attrs, err := netlink.NewAttributeDecoder(m.Data[header:])
	if err != nil {
		return true
	}
	for attrs.Next() {
		if attrs.Type() == unix.NFTA_RULE_TABLE { // As is that of chains, sets and elements; of tables it is the name.
			return attrs.String() != tableName
		}
	}
	return true
}
