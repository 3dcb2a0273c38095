package linux

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Check says what keeps this machine from carrying networks, nil when nothing does. It changes
// nothing that stays.
func Check() error {
	var missing []error
	for _, need := range []func() error{checkRights, checkTunnels, checkTables, checkBridges, checkForwarding} {
		if err := need(); err != nil {
			missing = append(missing, err)
			if errors.Is(err, errRights) {
				break // Without them nothing can be tried.
			}
		}
	}
	if len(missing) == 0 {
		return nil
	}
	words := make([]string, len(missing))
	for i, err := range missing {
		words[i] = err.Error()
	}
	return errors.New(strings.Join(words, "; "))
}

var errRights = errors.New("the daemon may not change networks: run it as root, in a container with --cap-add NET_ADMIN --network host")

// checkRights looks for CAP_NET_ADMIN.
func checkRights() error {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return fmt.Errorf("look at the daemon's rights: %w", err)
	}
	return rights(string(status))
}

// rights looks for CAP_NET_ADMIN in a process's status.
func rights(status string) error {
	for line := range strings.Lines(status) {
		if name, value, _ := strings.Cut(line, ":"); name == "CapEff" {
			bits, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
			if err == nil && bits&(1<<unix.CAP_NET_ADMIN) != 0 {
				return nil
			}
		}
	}
	return errRights
}

// checkTunnels looks for VXLAN.
func checkTunnels() error {
	switch err := probe("vxlan"); {
	case errors.Is(err, unix.EOPNOTSUPP):
		return errors.New("the kernel has no VXLAN: load the module vxlan")
	case err != nil:
		return fmt.Errorf("ask for VXLAN: %w", err)
	}
	return nil
}

// probe asks for a link of a kind that isn't described: a kernel that knows such says what is missing
// of it, or makes one, which is removed; another one says EOPNOTSUPP.
func probe(kind string) error {
	req := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	req.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated("skxcheck")))
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated(kind))
	req.AddData(info)
	switch _, err := req.Execute(unix.NETLINK_ROUTE, 0); {
	case err == nil: // A kernel that needs no description.
		link, err := netlink.LinkByName("skxcheck")
		if err != nil {
			return err
		}
		return netlink.LinkDel(link)
	case errors.Is(err, unix.EINVAL):
		return nil
	default:
		return err
	}
}

// checkTable is a table that is gone at the end of the transaction that makes it.
const checkTable = "skepcheck"

// checkTables has the kernel look at one rule of each kind that skep's table has.
func checkTables() error {
	conn, err := dial()
	if err != nil {
		return fmt.Errorf("the kernel has no nftables: %w", err)
	}
	b := &batch{Conn: conn}
	table := &nftables.Table{Name: checkTable, Family: nftables.TableFamilyIPv4}
	b.AddTable(table)
	chain := func(name string, typ nftables.ChainType, hook *nftables.ChainHook, rules ...[]expr.Any) {
		c := b.AddChain(&nftables.Chain{Name: name, Table: table, Type: typ, Hooknum: hook, Priority: nftables.ChainPriorityFilter})
		for _, exprs := range rules {
			b.rule(&nftables.Rule{Table: table, Chain: c, Exprs: exprs})
		}
	}
	dnat := func(choose ...expr.Any) []expr.Any {
		return append(choose, &expr.Immediate{Register: reg1, Data: []byte{127, 0, 0, 1}},
			&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: reg1})
	}
	chain("zone", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, zone("skb1001"))
	chain("pre", nftables.ChainTypeNAT, nftables.ChainHookPrerouting,
		chainRule(isLocal(destinationType), dnat(&expr.Numgen{Register: reg1, Modulus: 2, Type: unix.NFT_NG_RANDOM})),
		dnat(source(false, reg1), &expr.Hash{SourceRegister: reg1, DestRegister: reg1, Length: 4, Modulus: 2, Seed: 1, Type: expr.HashTypeJenkins}))
	chain("post", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, chainRule(translated(), []expr.Any{&expr.Masq{}}))
	chain("in", nftables.ChainTypeFilter, nftables.ChainHookInput, chainRule(state(expr.CtStateBitNEW), []expr.Any{
		&expr.Ct{Key: expr.CtKeyMARK, Register: reg1}, &expr.Meta{Key: expr.MetaKeyMARK, Register: reg1, SourceRegister: true},
		&expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: portUnreachable(false)},
	}))
	b.DelTable(table)
	if err := errors.Join(b.err, b.Flush()); err != nil {
		return fmt.Errorf("the kernel's nftables lack something that networks need (nf_tables, nft_nat, nft_masq, nft_reject, nft_fib, nft_numgen, nft_hash, nf_conntrack with zones): %w", err)
	}
	return nil
}

// checkBridges looks for what has bridged packets pass by netfilter. Without it virtual IPs time out.
func checkBridges() error {
	if _, err := os.Stat(sysctlPath("net.bridge.bridge-nf-call-iptables")); err != nil {
		return errors.New("the kernel doesn't show bridged packets to netfilter: load the module br_netfilter (modprobe br_netfilter)")
	}
	return nil
}

// checkForwarding looks whether the machine routes.
func checkForwarding() error {
	if value, err := os.ReadFile(sysctlPath("net.ipv4.ip_forward")); err != nil || strings.TrimSpace(string(value)) == "0" {
		return errors.New("the machine doesn't forward packets: sysctl net.ipv4.ip_forward=1 (the engine sets it, unless told not to)")
	}
	return nil
}
