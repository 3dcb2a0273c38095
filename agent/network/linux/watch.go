package linux

import (
	"context"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Watch calls changed at the kernel's news of links, addresses, rules and nftables. Neighbours
// aren't among them: every one that is heard of or forgotten on the machine would be news, and
// skep's are permanent.
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
	sockets := []*netlink.Conn{links, tables}
	ended := make(chan error, len(sockets))
	for _, socket := range sockets {
		go func() { ended <- hear(socket, changed) }()
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
func hear(socket *netlink.Conn, changed func()) error {
	for {
		_, err := socket.Receive()
		if err != nil && !errors.Is(err, unix.ENOBUFS) { // News that were lost are news.
			return err
		}
		changed()
	}
}
