// Package linux is the network.Plane of a Linux kernel: links, forwarding entries,
// neighbours, routes and rules by netlink, and one table of nftables for each family.
//
// It is the only package that speaks of these to the kernel. It runs in the network
// namespace of its process, and needs CAP_NET_ADMIN. Watch has a goroutine for each of its
// two sockets, which end with it.
//
// Objects are recognized by what skep puts on them: links by their alias, routes and rules
// by their protocol number, the table by its name. What a kernel or an engine adds to the
// links by itself is left alone.
package linux
