package linux

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"skep/agent/network"
)

// Plane is the kernel's part in networks. Dump and Apply aren't called at the same time.
type Plane struct {
	log *slog.Logger
	// known is what was last read of the firewalls, nil before. It is stale when somebody may have
	// changed them.
	known    firewalls
	stale    atomic.Bool
	own      ownNews
	wires    wires
	wireFile func(clusterID string) string
	// reserved are the sockets of published ports. They belong to whoever calls Reserve.
	reserved map[reservation]int
	// fault, when it is set, is between a try of the kernel and what comes of it: tests have it fail.
	fault func(steps []network.Step, do func() error) error
}

var _ network.Plane = (*Plane)(nil)

// New returns the Plane of the process's network namespace. Where the kernel has no WireGuard another
// process has the devices of which there is a line each in a cluster's wireFile.
func New(log *slog.Logger, wireFile func(clusterID string) string) *Plane {
	return &Plane{log: log, wireFile: wireFile, reserved: map[reservation]int{}, wires: wires{keys: map[string]wgtypes.Key{}}}
}

// Dump lists the cluster's objects.
func (p *Plane) Dump(ctx context.Context, clusterID string) (network.Existing, error) {
	out := network.Existing{Ports: map[string][]string{}}
	p.wires.file = p.wireFile(clusterID)
	links, err := netlink.LinkList()
	if err != nil {
		return out, fmt.Errorf("list links: %w", err)
	}
	if err := p.dumpLinks(&out, clusterID, links); err != nil {
		return out, fmt.Errorf("list links: %w", err)
	}
	if err := p.dumpFirewalls(ctx, &out, foreign(links, clusterID)); err != nil {
		return out, fmt.Errorf("list the engine's firewall: %w", err)
	}
	for _, v6 := range []bool{false, true} {
		if err := dumpRoutes(&out, links, v6); err != nil {
			return out, fmt.Errorf("list routes: %w", err)
		}
		if err := dumpTable(&out, v6); err != nil {
			return out, fmt.Errorf("list nftables: %w", err)
		}
	}
	return out, nil
}

// foreign are the bridges that aren't this cluster's.
func foreign(links []netlink.Link, clusterID string) map[string]bool {
	others := map[string]bool{}
	for _, link := range links {
		if !strings.HasPrefix(link.Attrs().Alias, aliasPrefix+clusterID+"/") {
			others[link.Attrs().Name] = true
		}
	}
	return others
}

// Apply carries out steps. Those of nftables that follow each other are one transaction.
func (p *Plane) Apply(ctx context.Context, steps []network.Step) error {
	var failed []error
	defer p.forget(steps)
	for len(steps) > 0 {
		if err := ctx.Err(); err != nil {
			return errors.Join(append(failed, err)...)
		}
		n := 0
		for n < len(steps) && ofTable(steps[n].Object) {
			n++
		}
		if n > 0 {
			failed = append(failed, p.transact(ctx, steps[:n], map[bool]bool{})...)
			steps = steps[n:]
			continue
		}
		err := p.try(steps[:1], func() error { return p.apply(ctx, steps[0]) })
		if err != nil && !(steps[0].Do == network.Remove && isGone(err)) {
			failed = append(failed, fmt.Errorf("%s: %w", steps[0], err))
		}
		steps = steps[1:]
	}
	return errors.Join(failed...)
}

// transact carries out steps of nftables' in one transaction, however many: what is replaced is whole at any
// time. If the kernel refuses it, each half is tried by itself, so that a step that can't be doesn't keep
// the others from it; but nothing in a table that can't be made. refused has the families of those.
func (p *Plane) transact(ctx context.Context, steps []network.Step, refused map[bool]bool) []error {
	steps = slices.DeleteFunc(slices.Clone(steps), func(s network.Step) bool { return refused[familyOfTable(s.Object)] })
	if len(steps) == 0 {
		return nil
	}
	err := p.try(steps, func() error { return p.applyTable(steps) })
	if err == nil {
		return nil
	}
	if half := len(steps) / 2; half > 0 && ctx.Err() == nil {
		return append(p.transact(ctx, steps[:half], refused), p.transact(ctx, steps[half:], refused)...)
	}
	if steps[0].Do == network.Remove && isGone(err) {
		return nil
	}
	if t, is := steps[0].Object.(network.Table); is && steps[0].Do != network.Remove {
		refused[t.IPv6] = true
	}
	return []error{fmt.Errorf("%s: %w", steps[0], err)}
}

// try asks the kernel for something.
func (p *Plane) try(steps []network.Step, do func() error) error {
	if p.fault != nil {
		return p.fault(steps, do)
	}
	return do()
}

// isGone tells whether the kernel says that there is no such thing: much goes by itself when
// what it lies on does.
func isGone(err error) bool {
	for _, gone := range []error{unix.ENOENT, unix.ESRCH, unix.ENODEV, unix.ENXIO, unix.EADDRNOTAVAIL, os.ErrNotExist} {
		if errors.Is(err, gone) {
			return true
		}
	}
	return errors.As(err, &netlink.LinkNotFoundError{})
}

func ofTable(o network.Object) bool {
	switch o.(type) {
	case network.Table, network.Chain, network.Element:
		return true
	}
	return false
}

// familyOfTable tells whether it is the table of IPv6 that an object of nftables' is in.
func familyOfTable(o network.Object) (v6 bool) {
	switch o := o.(type) {
	case network.Table:
		return o.IPv6
	case network.Chain:
		return o.IPv6
	case network.Element:
		return o.IPv6
	}
	return false
}
