package api

import (
	"cmp"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/store"
)

const (
	// optionMTU is how long the packets of a network's containers may be.
	optionMTU = "com.docker.network.driver.mtu"
	// optionVNI is where Docker shows the VXLAN identifier.
	optionVNI = "com.docker.network.driver.overlay.vxlanid_list"
	// defaultIPAM is the only IPAM driver there is.
	defaultIPAM = "default"

	// IPv4 and IPv6 need packets of at least minMTU and minMTU6 bytes, and have none longer
	// than maxMTU.
	minMTU, minMTU6, maxMTU = 576, 1280, 65535
)

// readNetwork makes a network that spans nodes of what a client asks for, as far as it says.
// What makes no sense, or isn't done, is refused.
func readNetwork(id string, asked *network.CreateRequest) (*cluster.Network, error) {
	if err := checkNetworkName(asked.Name); err != nil {
		return nil, err
	}
	if _, ok := asked.Labels[cluster.LabelPredefined]; ok {
		return nil, fail(cluster.ErrDenied, "label %s is for internally created predefined networks and cannot be applied by users", cluster.LabelPredefined)
	}
	if driver := cmp.Or(asked.Driver, network.NetworkBridge); driver != cluster.OverlayDriver && !asked.Ingress {
		return readLocalNetwork(id, driver, asked)
	}
	if err := checkNetworkKind(asked); err != nil {
		return nil, err
	}
	n := &cluster.Network{ID: id, Spec: swarm.NetworkSpec{
		Annotations:         swarm.Annotations{Name: asked.Name, Labels: asked.Labels},
		DriverConfiguration: &swarm.Driver{Name: cluster.OverlayDriver, Options: asked.Options},
		IPv6Enabled:         asked.EnableIPv6 != nil && *asked.EnableIPv6,
		Internal:            asked.Internal, Attachable: asked.Attachable, Ingress: asked.Ingress, Scope: "swarm",
	}}
	if err := checkNetworkOptions(asked.Options, n.Spec.IPv6Enabled); err != nil {
		return nil, err
	}
	if err := readIPAM(n, asked.IPAM); err != nil {
		return nil, err
	}
	return n, nil
}

// readLocalNetwork makes a network of the cluster that the engine of each node makes by itself, when a
// task there is to be on it. What the engine thinks of its options the tasks say.
func readLocalNetwork(id, driver string, asked *network.CreateRequest) (*cluster.Network, error) {
	n := &cluster.Network{ID: id, Spec: swarm.NetworkSpec{
		Annotations: swarm.Annotations{Name: asked.Name, Labels: asked.Labels}, DriverConfiguration: &swarm.Driver{Name: driver, Options: asked.Options},
		IPv6Enabled: asked.EnableIPv6 != nil && *asked.EnableIPv6, Internal: asked.Internal, Scope: "swarm",
	}}
	from := asked.ConfigFrom != nil && asked.ConfigFrom.Network != ""
	switch {
	case asked.ConfigOnly:
		return nil, fail(cluster.ErrInvalid, "configuration network can only contain network specific fields. Network operator fields like [ ingress | internal | attachable | scope ] are not supported: "+
			"make it on each node, without --scope, and name it with --config-from")
	case driver == "host" || driver == "null" || driver == "none":
		return nil, unsupported("a network of driver "+driver+" and scope swarm", "give services --network host or --network none, which each node has")
	case asked.Attachable:
		return nil, unsupported("Attachable of a network that each engine makes by itself", "leave --attachable out: containers that docker run makes can be on networks of their own engine, made without --scope, or on attachable ones of driver overlay")
	case asked.EnableIPv4 != nil && !*asked.EnableIPv4:
		return nil, unsupported("EnableIPv4=false of a network of the cluster", "leave --ipv4=false out")
	case from && (len(asked.Options)+len(asked.Labels) > 0 || n.Spec.IPv6Enabled || asked.IPAM != nil && len(asked.IPAM.Config)+len(asked.IPAM.Options) > 0):
		return nil, fail(cluster.ErrDenied, "user specified configurations are not supported if the network depends on a configuration network: leave --subnet, --opt, --label and --ipv6 to that")
	case from:
		n.Spec.ConfigFrom = &network.ConfigReference{Network: asked.ConfigFrom.Network}
	}
	if asked.IPAM == nil || from {
		return n, nil
	}
	n.Spec.IPAMOptions = &swarm.IPAMOptions{Driver: swarm.Driver{Name: cmp.Or(asked.IPAM.Driver, defaultIPAM), Options: asked.IPAM.Options}}
	for _, c := range asked.IPAM.Config {
		if _, err := readSubnet(c); err != nil {
			return nil, err
		}
		if len(c.AuxAddress) > 0 {
			return nil, unsupported("auxiliary addresses of a network that each engine makes by itself", "leave --aux-address out, and keep tasks off them with --ip-range")
		}
		if c.Subnet != "" {
			n.Spec.IPAMOptions.Configs = append(n.Spec.IPAMOptions.Configs, swarm.IPAMConfig{Subnet: c.Subnet, Range: c.IPRange, Gateway: c.Gateway})
		}
	}
	return n, nil
}

// localSubnets are those that a network has that engines make by themselves; others have none of these.
func localSubnets(n *cluster.Network) (list []netip.Prefix) {
	if n.Spans() || n.Spec.IPAMOptions == nil {
		return nil
	}
	for _, c := range n.Spec.IPAMOptions.Configs {
		if prefix, err := netip.ParsePrefix(c.Subnet); err == nil {
			list = append(list, prefix.Masked())
		}
	}
	return list
}

// checkLocalSubnets refuses those that a network has that spans nodes: no node could have both.
func checkLocalSubnets(view store.View, n *cluster.Network) error {
	for other := range view.Networks() {
		for _, s := range other.Subnets {
			for _, prefix := range localSubnets(n) {
				if prefix.Overlaps(s.Prefix) {
					return fail(cluster.ErrPrecondition, "invalid pool request: Pool overlaps with other one on this address space: subnet %s overlaps %s of network %s: choose another", prefix, s.Prefix, other.Spec.Name)
				}
			}
		}
	}
	return nil
}

func checkNetworkName(name string) error {
	switch {
	case name == "":
		return fail(cluster.ErrInvalid, "name must be provided")
	case reservedNetworkName(name):
		return fail(cluster.ErrDenied, "operation is not permitted on predefined %s network", name)
	case !cluster.IsServiceName(name):
		return fail(cluster.ErrInvalid, "name must be valid as a DNS name component")
	case len(name) > maxNameLength:
		return fail(cluster.ErrInvalid, "name must be %d characters or fewer", maxNameLength)
	}
	return nil
}

// reservedNetworkName tells of the names that have a meaning with each engine.
func reservedNetworkName(name string) bool {
	_, predefined := cluster.PredefinedNetwork(name)
	return predefined || name == network.NetworkDefault
}

// checkNetworkKind refuses networks that the cluster can't have.
func checkNetworkKind(asked *network.CreateRequest) error {
	driver := cmp.Or(asked.Driver, network.NetworkBridge)
	switch {
	case asked.ConfigOnly || asked.ConfigFrom != nil && asked.ConfigFrom.Network != "":
		return unsupported("ConfigOnly and ConfigFrom of a network that spans nodes", "give its own settings: --subnet, --opt and others; networks of one node, of other drivers and without --scope swarm, can have them")
	case asked.Ingress && driver != cluster.OverlayDriver:
		return fail(cluster.ErrUnsupported, "only overlay driver is currently supported for ingress network: give --driver overlay")
	case asked.Scope != "" && !strings.EqualFold(asked.Scope, "swarm"):
		return fail(cluster.ErrInvalid, "a network of driver overlay has scope swarm, not %s: leave --scope out", asked.Scope)
	case asked.Attachable && asked.Ingress:
		return fail(cluster.ErrInvalid, "ingress network cannot be attachable")
	case asked.Internal && asked.Ingress:
		return fail(cluster.ErrInvalid, "ingress network cannot be internal: nobody outside could reach what is published")
	case asked.EnableIPv4 != nil && !*asked.EnableIPv4:
		return unsupported("EnableIPv4=false of a network that spans nodes", "leave --ipv4=false out: it has IPv4, and IPv6 beside it with --ipv6")
	}
	return nil
}

// checkNetworkOptions refuses options of the driver that do nothing here.
func checkNetworkOptions(options map[string]string, six bool) error {
	for name, value := range options {
		switch name {
		case optionMTU:
			least := minMTU
			if six {
				least = minMTU6
			}
			if mtu, err := strconv.Atoi(value); err != nil || mtu < least || mtu > maxMTU {
				return fail(cluster.ErrInvalid, "option %s: %q must be a number from %d to %d", name, value, least, maxMTU)
			}
		case cluster.OptionEncrypted:
			if _, err := strconv.ParseBool(value); err != nil && value != "" {
				return fail(cluster.ErrInvalid, "option %s: %q must be true or false, or nothing, which is true", name, value)
			}
		case optionVNI:
			return unsupported("option "+name, "leave it out: VXLAN identifiers are chosen so that no two networks have the same")
		default:
			return unsupported(fmt.Sprintf("option %q of a network that spans nodes", name), "leave it out")
		}
	}
	return nil
}

// readIPAM gives the network the subnets that were asked for.
func readIPAM(n *cluster.Network, asked *network.IPAM) error {
	if asked == nil {
		return nil
	}
	switch {
	case asked.Driver != "" && asked.Driver != defaultIPAM:
		return unsupported("IPAM driver "+asked.Driver, "leave --ipam-driver out: addresses are given out by skep itself")
	case len(asked.Options) > 0:
		return unsupported("IPAM options", "leave --ipam-opt out: addresses are given out by skep itself")
	}
	var options swarm.IPAMOptions
	for _, c := range asked.Config {
		options.Configs = append(options.Configs, swarm.IPAMConfig{Subnet: c.Subnet, Range: c.IPRange, Gateway: c.Gateway})
		s, err := readSubnet(c)
		if err != nil {
			return err
		}
		if s.Prefix.IsValid() {
			n.Subnets = append(n.Subnets, s)
		}
	}
	if len(options.Configs) > 0 {
		options.Driver.Name = defaultIPAM
		n.Spec.IPAMOptions = &options
	}
	return nil
}

// readSubnet reads one subnet. None at all is no error: clients send an empty one.
func readSubnet(c network.IPAMConfig) (cluster.Subnet, error) {
	var s cluster.Subnet
	if c.Subnet == "" {
		if c.IPRange != "" || c.Gateway != "" || len(c.AuxAddress) > 0 {
			return s, fail(cluster.ErrInvalid, "every ip-range or gateway must have a corresponding subnet: give --subnet, too")
		}
		return s, nil
	}
	var err error
	if s.Prefix, err = netip.ParsePrefix(c.Subnet); err != nil {
		return s, fail(cluster.ErrInvalid, "invalid subnet %s: invalid CIDR block notation", c.Subnet)
	}
	if c.IPRange != "" {
		if s.Range, err = netip.ParsePrefix(c.IPRange); err != nil {
			return s, fail(cluster.ErrInvalid, "invalid ip-range %s: invalid CIDR block notation", c.IPRange)
		}
	}
	if c.Gateway != "" {
		if s.Gateway, err = readHost(c.Gateway); err != nil {
			return s, fail(cluster.ErrInvalid, "invalid gateway %s: invalid address", c.Gateway)
		}
	}
	for name, text := range c.AuxAddress {
		addr, err := readHost(text)
		if err != nil {
			return s, fail(cluster.ErrInvalid, "invalid auxiliary address %s: %s is no address", name, text)
		}
		if s.Aux == nil {
			s.Aux = map[string]netip.Addr{}
		}
		s.Aux[name] = addr
	}
	return s, nil
}

// readHost reads an address, which has no zone.
func readHost(text string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(text)
	if err == nil && addr.Zone() != "" {
		err = fmt.Errorf("%s has a zone", text)
	}
	return addr, err
}
