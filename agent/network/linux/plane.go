package linux

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"skep/agent/network"
)

// Plane is the kernel's part in networks.
type Plane struct{ log *slog.Logger }

var _ network.Plane = (*Plane)(nil)

// New returns the Plane of the process's network namespace.
func New(log *slog.Logger) *Plane { return &Plane{log} }

// Dump lists the cluster's objects.
func (p *Plane) Dump(_ context.Context, clusterID string) (network.Existing, error) {
	out := network.Existing{Ports: map[string][]string{}}
	links, err := netlink.LinkList()
	if err != nil {
		return out, fmt.Errorf("list links: %w", err)
	}
	if err := dumpLinks(&out, clusterID, links); err != nil {
		return out, fmt.Errorf("list links: %w", err)
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

// rulesAtOnce is how many changes of nftables are one transaction: more of them don't fit
// into the buffers of a netlink socket.
const rulesAtOnce = 500

// Apply carries out steps. Those of nftables that follow each other are one transaction; if the
// kernel refuses it, each is tried by itself, so that the others aren't kept from it.
func (p *Plane) Apply(ctx context.Context, steps []network.Step) error {
	var failed []error
	for len(steps) > 0 {
		if err := ctx.Err(); err != nil {
			return errors.Join(append(failed, err)...)
		}
		n := 0
		for n < len(steps) && n < rulesAtOnce && ofTable(steps[n].Object) {
			n++
		}
		if n > 0 {
			if err := applyTable(steps[:n]); err != nil && n > 1 {
				for i := range steps[:n] {
					if err := applyTable(steps[i : i+1]); err != nil {
						failed = append(failed, fmt.Errorf("%s: %w", steps[i], err))
					}
				}
			} else if err != nil {
				failed = append(failed, fmt.Errorf("%s: %w", steps[0], err))
			}
			steps = steps[n:]
			continue
		}
		if err := apply(steps[0]); err != nil && !(steps[0].Do == network.Remove && isGone(err)) {
			failed = append(failed, fmt.Errorf("%s: %w", steps[0], err))
		}
		steps = steps[1:]
	}
	return errors.Join(failed...)
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
