package linux

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"skep/agent/network"
)

const (
	// wireAnswers is how long whoever has a WireGuard device may take to answer, and wireComes how long
	// one may take to come that another process makes.
	wireAnswers, wireComes = 2 * time.Second, 3 * time.Second
	// wireKeepalive has a peer be met though there is nothing to send, and keeps the way open through
	// firewalls between the nodes.
	wireKeepalive = 25 * time.Second
	// wireFilter is the setting of a device by which the kernel takes what comes by one that it wouldn't
	// answer by: while keys are rotated two devices lead to a node.
	wireFilter = "2"
)

// wires makes WireGuard devices: the kernel's, or such of a process where it has none.
type wires struct {
	// file has a line for each device that the process is to have.
	file string
	// keys are the devices' private keys, as they were seen last: one that is lost with its process comes
	// back with the key that other nodes know.
	keys map[string]wgtypes.Key
}

// CheckEncryption says what keeps this machine from carrying encrypted networks, nil when nothing
// does. slow is set when a process has to do what the kernel can't.
func CheckEncryption() (slow bool, err error) {
	err = probe("wireguard")
	if !errors.Is(err, unix.EOPNOTSUPP) {
		return false, err
	}
	tun, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err == nil {
		defer tun.Close()
		var request *unix.Ifreq
		if request, err = unix.NewIfreq("skwcheck"); err == nil {
			request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
			err = unix.IoctlIfreq(int(tun.Fd()), unix.TUNSETIFF, request) // It goes when the file is closed.
		}
	}
	if err != nil {
		return false, fmt.Errorf("the kernel has no WireGuard (load the module wireguard), and instead of it a TUN device is needed (module tun; in a container --device /dev/net/tun): %w", err)
	}
	return true, nil
}

// kernelWires tells whether the kernel has WireGuard.
func kernelWires() bool { return !errors.Is(probe("wireguard"), unix.EOPNOTSUPP) }

// wireControl runs use, in time: a process may hang.
func wireControl[T any](use func(*wgctrl.Client) (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		var r result
		var client *wgctrl.Client
		if client, r.err = wgctrl.New(); r.err == nil {
			r.value, r.err = use(client)
			r.err = errors.Join(r.err, client.Close())
		}
		done <- r
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-time.After(wireAnswers):
		var none T
		return none, fmt.Errorf("no answer within %v", wireAnswers)
	}
}

func device(name string) (*wgtypes.Device, error) {
	return wireControl(func(c *wgctrl.Client) (*wgtypes.Device, error) { return c.Device(name) })
}

func configure(name string, cfg wgtypes.Config) error {
	_, err := wireControl(func(c *wgctrl.Client) (struct{}, error) { return struct{}{}, c.ConfigureDevice(name, cfg) })
	return err
}

// put makes a device, or makes it as it should be.
func (p *wires) put(ctx context.Context, o network.Wire) error {
	if err := p.make(ctx, o); err != nil {
		return err
	}
	link, err := netlink.LinkByName(o.Name)
	if err != nil {
		return err
	}
	key, known := p.keys[o.Name]
	if d, err := device(o.Name); err != nil {
		return err
	} else if d.PrivateKey != (wgtypes.Key{}) {
		key = d.PrivateKey
	} else if !known {
		if key, err = wgtypes.GeneratePrivateKey(); err != nil {
			return err
		}
	}
	port := int(o.Port)
	for _, set := range []func() error{
		func() error { return netlink.LinkSetAlias(link, o.Alias) },
		func() error { return netlink.LinkSetMTU(link, o.MTU) },
		func() error {
			if err := netlink.LinkSetIP6AddrGenMode(link, nl.IN6_ADDR_GEN_MODE_NONE); !errors.Is(err, unix.EAFNOSUPPORT) {
				return err
			}
			return nil
		},
		func() error {
			return os.WriteFile(sysctlPath("net.ipv4.conf."+o.Name+".rp_filter"), []byte(wireFilter), 0o644)
		},
		func() error { return configure(o.Name, wgtypes.Config{PrivateKey: &key, ListenPort: &port}) },
		func() error { return netlink.LinkSetUp(link) },
	} {
		if err := set(); err != nil {
			return err
		}
	}
	return nil
}

// make has the device be there, and answer.
func (p *wires) make(ctx context.Context, o network.Wire) error {
	link, err := netlink.LinkByName(o.Name)
	if err == nil && link.Attrs().Alias != "" && link.Attrs().Alias != o.Alias {
		return fmt.Errorf("there is a %s of this name that isn't the cluster's: remove it with `ip link delete %s`", link.Type(), o.Name)
	}
	if err != nil && !isGone(err) {
		return err
	}
	if kernelWires() {
		if link != nil {
			return nil
		}
		attrs := netlink.NewLinkAttrs()
		attrs.Name = o.Name
		return netlink.LinkAdd(&netlink.Wireguard{LinkAttrs: attrs})
	}
	if err := p.wish(func(names []string) []string { return append(names, o.Name) }); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, wireComes)
	defer cancel()
	for {
		_, err := device(o.Name)
		if err == nil {
			_, err = netlink.LinkByName(o.Name)
		}
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the process that encrypts: %w", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// remove removes a device, and forgets its key.
func (p *wires) remove(name string) error {
	delete(p.keys, name)
	err := p.wish(func(names []string) []string {
		return slices.DeleteFunc(names, func(n string) bool { return n == name })
	})
	if gone := removeLink(name); !isGone(gone) {
		err = errors.Join(err, gone)
	}
	return err
}

// wish changes what devices the process is to have. Without any it ends.
func (p *wires) wish(change func([]string) []string) error {
	data, err := os.ReadFile(p.file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	names := strings.Fields(string(data))
	before := slices.Clone(names)
	names = slices.Compact(slices.Sorted(slices.Values(change(names))))
	if slices.Equal(names, before) {
		return nil
	}
	if len(names) == 0 {
		return os.Remove(p.file)
	}
	if err := os.MkdirAll(filepath.Dir(p.file), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(p.file+".new", []byte(strings.Join(names, "\n")+"\n"), 0o600); err != nil {
		return err
	}
	return os.Rename(p.file+".new", p.file)
}

// putPeer makes a peer of a device be as it should, or removes it.
func putPeer(o network.WirePeer, gone bool) error {
	keepalive := wireKeepalive
	return configure(o.Link, wgtypes.Config{Peers: []wgtypes.PeerConfig{{
		PublicKey: o.Public, Remove: gone, Endpoint: net.UDPAddrFromAddrPort(o.Endpoint), PersistentKeepaliveInterval: &keepalive,
		ReplaceAllowedIPs: true, AllowedIPs: []net.IPNet{*ipNet(netip.PrefixFrom(o.Allowed, o.Allowed.BitLen()))},
	}}})
}

// dump lists a device, its address and its peers. One that doesn't answer isn't there.
func (p *wires) dump(out *network.Existing, link netlink.Link) error {
	attrs := link.Attrs()
	d, err := device(attrs.Name)
	if err != nil {
		return nil
	}
	o := network.Wire{Name: attrs.Name, Alias: attrs.Alias, MTU: attrs.MTU, Port: uint16(d.ListenPort)}
	if d.PrivateKey != (wgtypes.Key{}) {
		p.keys[attrs.Name], o.Public = d.PrivateKey, d.PublicKey
	}
	filter, err := os.ReadFile(sysctlPath("net.ipv4.conf." + attrs.Name + ".rp_filter"))
	if err != nil || attrs.Flags&net.FlagUp == 0 || strings.TrimSpace(string(filter)) != wireFilter || o.Public == [32]byte{} {
		o.MTU = wrong
	}
	out.Objects = append(out.Objects, o)
	addrs, err := netlink.AddrList(link, unix.AF_INET)
	if err != nil {
		return err
	}
	for _, a := range addrs {
		ones, _ := a.Mask.Size()
		out.Objects = append(out.Objects, network.Address{Link: attrs.Name, Prefix: netip.PrefixFrom(netipOf(a.IP), ones)})
	}
	for _, peer := range d.Peers {
		o := network.WirePeer{Link: attrs.Name, Public: peer.PublicKey, Met: !peer.LastHandshakeTime.IsZero()}
		if peer.Endpoint != nil {
			at := peer.Endpoint.AddrPort()
			o.Endpoint = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
		}
		if len(peer.AllowedIPs) == 1 && peer.PersistentKeepaliveInterval == wireKeepalive {
			o.Allowed = netipOf(peer.AllowedIPs[0].IP)
		}
		out.Objects = append(out.Objects, o)
	}
	return nil
}
