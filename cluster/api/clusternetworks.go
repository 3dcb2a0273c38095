package api

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/swarm"
	timetypes "github.com/docker/docker/api/types/time"

	"skep/cluster"
	"skep/scheduler/address"
	"skep/store"
)

// The leader's part of what clients ask of networks: those of the cluster alone. Each node
// puts its own engine's beside them (networkroutes.go).

func findNetwork(view store.View, ref string) (*cluster.Network, error) {
	if n := view.Network(ref); n != nil {
		return n, nil
	}
	if n := view.NetworkNamed(ref); n != nil && n.Spec.Name == ref {
		return n, nil
	}
	return only("network", ref, view.NetworksWithPrefix(ref))
}

func (s *Server) createClusterNetwork(ctx context.Context, r *request) (response, error) {
	var asked network.CreateRequest
	if err := r.decodeStrict(&asked); err != nil {
		return response{}, err
	}
	if r.before("1.48") {
		asked.EnableIPv4 = nil
	}
	wanted, err := readNetwork(cluster.NewID(s.Random), &asked)
	if err != nil {
		return response{}, err
	}
	engines := s.EngineUses(ctx)
	err = r.manager.Store().Update(ctx, func(tx *store.Tx) error {
		if old := tx.IngressNetwork(); wanted.Spec.Ingress && old != nil {
			return fail(cluster.ErrExists, "rpc error: code = AlreadyExists desc = ingress network (%s) is already present", old.ID)
		}
		if tx.NetworkNamed(wanted.Spec.Name) != nil {
			return errNetworkTaken(wanted.Spec.Name)
		}
		next := *wanted
		if next.Driver() != cluster.OverlayDriver {
			if err := checkLocalSubnets(tx.View, &next); err != nil {
				return err
			}
			return tx.Put(&next)
		}
		if record := tx.Cluster(); record != nil {
			if err := next.EncryptNew(record.Spec); err != nil {
				return err
			}
		}
		if err := neighbours(tx.View, engines).Complete(&next); err != nil {
			return err
		}
		return tx.Put(&next)
	})
	if err != nil {
		return response{}, err
	}
	return response{status: http.StatusCreated, body: network.CreateResponse{ID: wanted.ID}}, nil
}

func errNetworkTaken(name string) error {
	return fail(cluster.ErrNameTaken, "network with name %s already exists", name)
}

// neighbours are what a new network must fit in with: the cluster's networks, and others that
// were found on nodes.
func neighbours(view store.View, others []address.Use) address.Neighbours {
	w := address.Neighbours{Settings: view.Cluster().NetworkSettings(), Used: slices.Clone(others), VNITaken: func(vni uint32) bool {
		// Tasks of a network that is gone may still stop, at addresses of it.
		return view.NetworkOfVNI(vni) != nil || view.AddressesIn(vni) > 0
	}}
	for node := range view.Nodes() {
		w.Avoided = append(w.Avoided, node.Uses...)
		for _, text := range []string{node.Status.Addr, node.DataAddr} {
			if addr, err := netip.ParseAddr(text); err == nil {
				w.Used = append(w.Used, address.Use{Prefix: netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen()), By: "node " + nodeName(node)})
			}
		}
	}
	for n := range view.Networks() {
		for _, s := range n.Subnets {
			w.Used = append(w.Used, address.Use{Prefix: s.Prefix, By: "network " + n.Spec.Name})
		}
		for _, prefix := range localSubnets(n) {
			w.Used = append(w.Used, address.Use{Prefix: prefix, By: "network " + n.Spec.Name})
		}
	}
	return w
}

func (s *Server) removeClusterNetwork(ctx context.Context, r *request) (response, error) {
	err := r.manager.Store().Update(ctx, func(tx *store.Tx) error {
		n, err := findNetwork(tx.View, r.vars("id"))
		if err != nil {
			return err
		}
		if user := networkUser(tx.View, n); user != "" {
			return errNetworkUsed(n, user)
		}
		tx.Delete(n)
		return nil
	})
	return response{status: http.StatusNoContent}, err
}

func errNetworkUsed(n *cluster.Network, user string) error {
	if n.Spec.Ingress {
		return fail(cluster.ErrPrecondition, "rpc error: code = FailedPrecondition desc = ingress network cannot be removed because %s depends on it", user)
	}
	return fail(cluster.ErrPrecondition, "rpc error: code = FailedPrecondition desc = network %s is in use by %s", n.ID, user)
}

// networkUser says who keeps a network from being removed: a service whose spec needs it, or a
// task that is to run on it. Tasks that stop don't: they lose it.
func networkUser(view store.View, n *cluster.Network) string {
	if n.Spec.Ingress {
		for service := range view.Services() {
			if publishesOnAllNodes(service.Spec.EndpointSpec) {
				return fmt.Sprintf("service %s (%s)", service.ID, service.Spec.Name)
			}
		}
	}
	for service := range view.ServicesUsing(n.ID) {
		return fmt.Sprintf("service %s (%s)", service.ID, service.Spec.Name)
	}
	for _, holder := range view.AddressHolders(n.VNI) {
		if holder.Kind != "task" {
			continue
		}
		if task := view.Task(holder.ID); task != nil && task.Desired <= cluster.StateRunning && task.Status.State <= cluster.StateRunning && !n.Spec.Ingress {
			return fmt.Sprintf("task %s (%s)", task.ID, taskName(view, task))
		}
	}
	for _, a := range attachmentsIn(view, n) {
		return fmt.Sprintf("container %s on node %s", cmp.Or(a.Name, a.ID), a.NodeID)
	}
	return ""
}

// publishesOnAllNodes tells whether an endpoint has a port that the routing mesh carries.
func publishesOnAllNodes(endpoint *swarm.EndpointSpec) bool {
	return endpoint != nil && slices.ContainsFunc(endpoint.Ports, func(p swarm.PortConfig) bool { return p.PublishMode != swarm.PortConfigPublishModeHost })
}

// usedNetworks are the IDs of networks that somebody uses.
func usedNetworks(view store.View) map[string]bool {
	used := map[string]bool{}
	for service := range view.Services() {
		for _, attachment := range service.Spec.TaskTemplate.Networks {
			used[attachment.Target] = true
		}
	}
	for n := range view.Networks() {
		if n.Spec.Ingress || !used[n.ID] && networkUser(view, n) != "" {
			used[n.ID] = true
		}
	}
	return used
}

// networkKeys are the filters of a list of networks.
var networkKeys = []string{"dangling", "driver", "id", "label", "name", "scope", "type"}

func (s *Server) listClusterNetworks(ctx context.Context, r *request) (response, error) {
	args, err := parseFilters(r, networkKeys...)
	if err != nil {
		return response{}, err
	}
	view := r.manager.Store().View()
	matches, err := networkFilter(view, args)
	if err != nil {
		return response{}, err
	}
	return response{list: listOf(view.Networks(), matches, renderNetwork)}, nil
}

// networkFilter tells which networks pass the filters. As in Swarm, names are whole ones.
func networkFilter(view store.View, args filters.Args) (func(*cluster.Network) bool, error) {
	if err := checkValues("type", args.Get("type"), "builtin", "custom"); err != nil {
		return nil, err
	}
	dangling := args.Get("dangling")
	if len(dangling) > 1 {
		return nil, fail(cluster.ErrInvalid, `got more than one value for filter key "dangling"`)
	}
	want, used := false, map[string]bool(nil)
	if len(dangling) == 1 {
		var err error
		if want, err = strconv.ParseBool(dangling[0]); err != nil {
			return nil, fail(cluster.ErrInvalid, `invalid value for filter 'dangling', must be "true" (or "1"), or "false" (or "0")`)
		}
		used = usedNetworks(view)
	}
	return func(n *cluster.Network) bool {
		return anyOfExactly(n.Spec.Name, args.Get("name")) && anyPrefix(n.ID, args.Get("id")) && hasLabels(n.Spec.Labels, args.Get("label")) &&
			anyOfExactly(n.Driver(), args.Get("driver")) && anyOfExactly("swarm", args.Get("scope")) && anyOf("custom", args.Get("type")) &&
			(used == nil || used[n.ID] != want)
	}, nil
}

// anyOfExactly tells whether text is one of values; no values, no filter.
func anyOfExactly(text string, values []string) bool {
	return len(values) == 0 || slices.Contains(values, text)
}

func (s *Server) inspectClusterNetwork(ctx context.Context, r *request) (response, error) {
	verbose, err := r.strictFlag("verbose")
	if err != nil {
		return response{}, err
	}
	view := r.manager.Store().View()
	n, err := findNetwork(view, r.vars("id"))
	if err != nil {
		return response{}, err
	}
	shown := renderNetwork(n)
	shown.Peers = renderPeers(view, n)
	if verbose {
		shown.Services = renderNetworkServices(view, n)
	}
	return response{body: shown}, nil
}

// pruneClusterNetworks removes the networks that nobody uses; never the ingress network.
func (s *Server) pruneClusterNetworks(ctx context.Context, r *request) (response, error) {
	args, err := parseFilters(r, "label", "label!", "until")
	if err != nil {
		return response{}, err
	}
	until := time.Time{}
	switch values := args.Get("until"); len(values) {
	case 0:
	case 1:
		text, err := timetypes.GetTimestamp(values[0], s.Now())
		if err != nil {
			return response{}, fail(cluster.ErrInvalid, "invalid filter 'until': %v", err)
		}
		seconds, nanos, err := timetypes.ParseTimestamps(text, 0)
		if err != nil {
			return response{}, fail(cluster.ErrInvalid, "invalid filter 'until': %v", err)
		}
		until = time.Unix(seconds, nanos)
	default:
		return response{}, fail(cluster.ErrInvalid, "more than one until filter specified")
	}
	var removed []string
	err = r.manager.Store().Update(ctx, func(tx *store.Tx) error {
		removed = nil
		used := usedNetworks(tx.View)
		var unused []*cluster.Network
		for n := range tx.Networks() {
			without := args.Get("label!")
			if !used[n.ID] && (until.IsZero() || !n.CreatedAt.After(until)) && hasLabels(n.Spec.Labels, args.Get("label")) && (len(without) == 0 || !hasLabels(n.Spec.Labels, without)) {
				unused = append(unused, n)
			}
		}
		for _, n := range unused {
			tx.Delete(n)
			removed = append(removed, n.Spec.Name)
		}
		return nil
	})
	if err != nil {
		return response{}, fmt.Errorf("prune networks: %w", err)
	}
	slices.Sort(removed)
	return response{body: network.PruneReport{NetworksDeleted: removed}}, nil
}

// renderNetwork shows a network as Docker does.
func renderNetwork(n *cluster.Network) network.Inspect {
	shown := network.Inspect{
		ID: n.ID, Name: n.Spec.Name, Created: n.CreatedAt.UTC(), Scope: "swarm", Driver: n.Driver(),
		EnableIPv4: true, EnableIPv6: n.Spec.IPv6Enabled, Internal: n.Spec.Internal, Attachable: n.Spec.Attachable, Ingress: n.Spec.Ingress,
		IPAM: network.IPAM{Driver: defaultIPAM, Config: []network.IPAMConfig{}}, Options: networkOptions(n), Labels: orEmpty(n.Spec.Labels),
	}
	if n.Spec.ConfigFrom != nil {
		shown.ConfigFrom = *n.Spec.ConfigFrom
	}
	if ipam := n.Spec.IPAMOptions; ipam != nil && !n.Spans() {
		shown.IPAM.Driver, shown.IPAM.Options = ipam.Driver.Name, ipam.Driver.Options
		for _, c := range ipam.Configs {
			shown.IPAM.Config = append(shown.IPAM.Config, network.IPAMConfig{Subnet: c.Subnet, IPRange: c.Range, Gateway: c.Gateway})
		}
	}
	var given []cluster.Subnet
	for _, s := range n.Subnets {
		given = append(given, s.Given()...)
	}
	for _, s := range given {
		config := network.IPAMConfig{Subnet: s.Prefix.String(), Gateway: s.Gateway.String()}
		if s.Range.IsValid() {
			config.IPRange = s.Range.String()
		}
		for name, addr := range s.Aux {
			if config.AuxAddress == nil {
				config.AuxAddress = map[string]string{}
			}
			config.AuxAddress[name] = addr.String()
		}
		shown.IPAM.Config = append(shown.IPAM.Config, config)
	}
	return shown
}

// networkOptions are the driver's: what was asked for, and the VXLAN identifier.
func networkOptions(n *cluster.Network) map[string]string {
	options := map[string]string{}
	if n.Spans() {
		options[optionVNI] = strconv.Itoa(int(n.VNI))
	}
	if n.Spec.DriverConfiguration != nil {
		for name, value := range n.Spec.DriverConfiguration.Options {
			options[name] = value
		}
	}
	return options
}

// renderSwarmNetwork shows a network as tasks on it do.
func renderSwarmNetwork(n *cluster.Network) swarm.Network {
	shown := swarm.Network{
		ID: n.ID, Meta: renderMeta(n.Meta), Spec: n.Spec,
		DriverState: swarm.Driver{Name: n.Driver(), Options: networkOptions(n)},
		IPAMOptions: &swarm.IPAMOptions{Driver: swarm.Driver{Name: defaultIPAM}},
	}
	shown.Spec.Labels = orEmpty(n.Spec.Labels)
	for _, config := range renderNetwork(n).IPAM.Config {
		shown.IPAMOptions.Configs = append(shown.IPAMOptions.Configs, swarm.IPAMConfig{Subnet: config.Subnet, Range: config.IPRange, Gateway: config.Gateway})
	}
	return shown
}

// renderPeers lists the nodes that carry a network: those of tasks that have an address in it
// and haven't ended, and for the ingress network all that are ready.
func renderPeers(view store.View, n *cluster.Network) []network.PeerInfo {
	carry := map[string]bool{}
	for task := range tasksOnNetwork(view, n) {
		carry[task.NodeID] = true
	}
	for _, a := range attachmentsIn(view, n) {
		carry[a.NodeID] = true
	}
	if n.Spec.Ingress {
		for node := range view.Nodes() {
			if node.Index != 0 && node.Status.State == cluster.NodeReady {
				carry[node.ID] = true
			}
		}
	}
	var peers []network.PeerInfo
	for id := range carry {
		if node := view.Node(id); node != nil {
			peers = append(peers, network.PeerInfo{Name: nodeName(node), IP: cmp.Or(node.DataAddr, node.Status.Addr)})
		}
	}
	slices.SortFunc(peers, func(a, b network.PeerInfo) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.IP, b.IP)) })
	return peers
}

// tasksOnNetwork gives the tasks that have an address in a network and haven't ended.
func tasksOnNetwork(view store.View, n *cluster.Network) func(yield func(*cluster.Task, cluster.Host) bool) {
	return func(yield func(*cluster.Task, cluster.Host) bool) {
		for host, holder := range view.AddressHolders(n.VNI) {
			if holder.Kind != "task" {
				continue
			}
			if task := view.Task(holder.ID); task != nil && !task.Status.State.Terminal() && !yield(task, host) {
				return
			}
		}
	}
}

// renderNetworkServices shows the services on a network with their virtual IPs, published ports
// and tasks.
func renderNetworkServices(view store.View, n *cluster.Network) map[string]network.ServiceInfo {
	services := map[string]network.ServiceInfo{}
	of := func(service *cluster.Service) network.ServiceInfo {
		info, ok := services[service.Spec.Name]
		if ok {
			return info
		}
		info = network.ServiceInfo{VIP: addrText(n, cluster.AddressIn(service.VirtualIPs, n.VNI)), Ports: []string{}, Tasks: []network.Task{}}
		for _, port := range service.Ports {
			if port.PublishMode != swarm.PortConfigPublishModeHost {
				info.Ports = append(info.Ports, fmt.Sprintf("Target: %d, Publish: %d", port.TargetPort, port.PublishedPort))
			}
		}
		return info
	}
	for _, holder := range view.AddressHolders(n.VNI) {
		if service := view.Service(holder.ID); holder.Kind == "service" && service != nil {
			services[service.Spec.Name] = of(service)
		}
	}
	for task, host := range tasksOnNetwork(view, n) {
		service := view.Service(task.ServiceID)
		if service == nil {
			continue // It goes, and so do they.
		}
		info, hostIP := of(service), ""
		if node := view.Node(task.NodeID); node != nil {
			hostIP = cmp.Or(node.DataAddr, node.Status.Addr)
		}
		info.Tasks = append(info.Tasks, network.Task{Name: taskName(view, task), EndpointID: task.ID, EndpointIP: addrText(n, host), Info: map[string]string{"Host IP": hostIP}})
		services[service.Spec.Name] = info
	}
	return services
}

// addrText is the IPv4 address of a place in a network; empty for none.
func addrText(n *cluster.Network, host cluster.Host) string {
	if host == 0 || len(n.Subnets) == 0 {
		return ""
	}
	return n.Subnets[0].Addr(host).String()
}
