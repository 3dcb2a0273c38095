// Package wire is the process that has WireGuard devices where the kernel has none: each is a TUN
// device, and wireguard-go behind it.
//
// Its goroutines: the one that runs Process owns the set of devices, one answers the door, and those of
// wireguard-go and of its configuration's sockets. It keeps nothing on a disk: keys and peers come by
// these sockets, from the daemon, and go with the process. What is sent to a device that is gone
// goes nowhere.
package wire
