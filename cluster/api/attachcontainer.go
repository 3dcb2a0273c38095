package api

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/api/types/versions"

	"skep/cluster"
)

// Containers of users on networks of the cluster: the leader gives them a place, and the engine is asked
// to make them with that address, on its part of the network.

const (
	// attachTimeout is how long a container's place, and the network on this node, may take.
	attachTimeout = 20 * time.Second
	// carryLook is how often the engine is asked for its part of a network meanwhile.
	carryLook = 100 * time.Millisecond
	// versionMAC is the API version from which an endpoint is told its MAC; engines before it make the
	// same one of its address.
	versionMAC = "1.44"
)

// object is an object of JSON whose other fields are kept as they came.
type object map[string]json.RawMessage

// field is the name that an object has a field by: engines read names without regard to case.
func (o object) field(name string) string {
	for key := range o {
		if strings.EqualFold(key, name) {
			return key
		}
	}
	return name
}

// object is the object in a field; an empty one when there is none.
func (o object) object(name string) (object, error) {
	inner := object{}
	if raw := o[o.field(name)]; len(raw) > 0 {
		if err := json.Unmarshal(raw, &inner); err != nil {
			return nil, fail(cluster.ErrInvalid, "invalid JSON: %s: %v", name, err)
		}
	}
	if inner == nil { // null
		inner = object{}
	}
	return inner, nil
}

func (o object) set(name string, v any) {
	// What is set are texts and what was JSON before.
	raw, _ := json.Marshal(v)
	o[o.field(name)] = raw
}

// endpointAsked is what a client says of a place in a network.
type endpointAsked struct {
	Aliases    []string
	MacAddress string
	IPAMConfig *struct{ IPv4Address, IPv6Address string }
}

// place is a container's place in a network of the cluster.
type place struct {
	network    *cluster.Network
	attachment *cluster.Attachment
	// part is the engine's part of the network.
	part *engineNetwork
}

// clusterRef is what to ask the leader for when a client names a network; "" when it is the engine's.
// Part is set when the engine has a part of it: that is never to be used behind the leader's back.
func (s *Server) clusterRef(ctx context.Context, r *request, ref string) (asks string, part bool) {
	if reservedNetworkName(ref) || ref == "" {
		return "", false
	}
	networks, err := s.engineNetworks(ctx, r.version, nil)
	if err != nil {
		return "", false // It says so itself.
	}
	here := matchEngine(networks, ref)
	switch {
	case len(here.whole)+len(here.named) > 0, here.part == "" && len(here.begin) > 0:
		return "", false
	case here.part != "":
		return here.part, true
	case s.Node.Info().LocalNodeState != swarm.LocalNodeStateActive:
		return "", false
	}
	return ref, false
}

// attachPlace gets a container a place in a network, and waits until this node carries it. It is nil when
// the cluster has no such network.
func (s *Server) attachPlace(ctx context.Context, r *request, ref, shown, name string, asked endpointAsked) (*place, error) {
	ctx, cancel := context.WithTimeout(ctx, attachTimeout)
	defer cancel()
	ask := cluster.AttachRequest{ID: cluster.NewID(s.Random), Network: ref, Name: strings.TrimPrefix(name, "/"), Aliases: asked.Aliases}
	var addrs []netip.Addr
	if asked.IPAMConfig != nil {
		for _, text := range []string{asked.IPAMConfig.IPv4Address, asked.IPAMConfig.IPv6Address} {
			if text == "" {
				continue
			}
			addr, err := netip.ParseAddr(text)
			if err != nil {
				return nil, fail(cluster.ErrInvalid, "invalid address %s", text)
			}
			addrs = append(addrs, addr)
			ask.Asked = addrs[0]
		}
	}
	answer, err := s.Node.Attach(ctx, ask)
	switch {
	case err != nil:
		//lint:ignore ST1005 the engine's words, which clients know
		return nil, fmt.Errorf("Could not attach to network %s: %w", shown, err)
	case answer.Network == nil:
		return nil, nil
	case answer.Attachment == nil:
		return nil, fail(cluster.ErrDenied, "Could not attach to network %s: rpc error: code = PermissionDenied desc = network %s not manually attachable", shown, shown)
	}
	p := &place{network: answer.Network, attachment: answer.Attachment}
	if err := p.check(asked, addrs); err != nil {
		s.free(p)
		return nil, err
	}
	if p.part, err = s.awaitPart(ctx, r, p.network); err != nil {
		s.free(p)
		return nil, err
	}
	return p, nil
}

// check refuses what a client asks for beside the place that it got.
func (p *place) check(asked endpointAsked, addrs []netip.Addr) error {
	name, own := p.network.Spec.Name, p.network.Addrs(p.attachment.Address.Host)
	for _, addr := range addrs {
		if !slices.Contains(own, addr) {
			return fail(cluster.ErrInvalid, "a container has the same number in each subnet of network %s: with %s the other address isn't %s: leave one of --ip and --ip6 out", name, own[0], addr)
		}
	}
	if mac := p.mac(); asked.MacAddress != "" && !strings.EqualFold(asked.MacAddress, mac) {
		return unsupported("MAC address "+asked.MacAddress+" on network "+name, "leave it out: other nodes know the container by "+mac)
	}
	return nil
}

// mac is the MAC that other nodes send to: it follows from the address.
func (p *place) mac() string {
	for _, addr := range p.network.Addrs(p.attachment.Address.Host) {
		if addr.Is4() {
			mac := cluster.EndpointMAC(addr)
			return net.HardwareAddr(mac[:]).String()
		}
	}
	return ""
}

// awaitPart waits for the engine's part of a network, which this node's agent makes.
func (s *Server) awaitPart(ctx context.Context, r *request, n *cluster.Network) (*engineNetwork, error) {
	for {
		networks, err := s.engineNetworks(ctx, r.version, nil)
		if i := slices.IndexFunc(networks, func(part *engineNetwork) bool { return part.of() == n.ID }); err == nil && i >= 0 {
			return networks[i], nil
		}
		if !pause(ctx, carryLook, nil) {
			why := strings.Join(s.Node.Info().Warnings, "; ")
			if why != "" {
				why = ": " + why
			}
			return nil, fail(cluster.ErrUnavailable, "Could not attach to network %s: this node doesn't carry it after %s%s", n.Spec.Name, attachTimeout, why)
		}
	}
}

// free gives places back. Were that to fail, the agent finds no container that has them.
func (s *Server) free(places ...*place) {
	var ids []string
	for _, p := range places {
		ids = append(ids, p.attachment.ID)
	}
	ctx, cancel := context.WithTimeout(context.Background(), engineTimeout)
	defer cancel()
	if err := s.Node.Detach(ctx, ids); err != nil {
		s.Log.Debug("give back a container's place in a network", "error", err)
	}
}

// freeUnlessMade gives places back when the engine has refused the request. Without its answer nobody
// knows: then the agent looks.
func (s *Server) freeUnlessMade(places ...*place) func(status int) {
	return func(status int) {
		if status >= http.StatusBadRequest && status != http.StatusServiceUnavailable {
			s.free(places...)
		}
	}
}

// settle writes a place into what the engine is told of an endpoint.
func (s *Server) settle(ctx context.Context, r *request, p *place, settings object) {
	config := map[string]string{}
	for _, addr := range p.network.Addrs(p.attachment.Address.Host) {
		if addr.Is4() {
			config["IPv4Address"] = addr.String()
		} else {
			config["IPv6Address"] = addr.String()
		}
	}
	settings.set("IPAMConfig", config)
	if s.engineSpeaks(ctx, versionMAC) && !r.before(versionMAC) && p.mac() != "" {
		settings.set("MacAddress", p.mac())
	}
}

// engineSpeaks tells whether the engine's API is of a version, or newer.
func (s *Server) engineSpeaks(ctx context.Context, version string) bool {
	_, high := s.engine.versions(ctx)
	return high != "" && !versions.LessThan(high, version)
}

// createContainer has the engine make a container, on networks of the cluster if it is to be on any.
func (s *Server) createContainer(ctx context.Context, r *request) (response, error) {
	body := object{}
	// What is wrong with it, the engine says.
	if json.Unmarshal(r.body, &body) != nil {
		return response{engine: true}, nil
	}
	host, err1 := body.object("HostConfig")
	networking, err2 := body.object("NetworkingConfig")
	if err1 != nil || err2 != nil {
		return response{engine: true}, nil
	}
	endpoints, err := networking.object("EndpointsConfig")
	if err != nil {
		return response{engine: true}, nil
	}
	var mode, mac string
	_ = json.Unmarshal(host[host.field("NetworkMode")], &mode)
	_ = json.Unmarshal(body[body.field("MacAddress")], &mac)
	refs := slices.Collect(maps.Keys(endpoints))
	if mode != "" && !strings.HasPrefix(mode, "container:") {
		refs = append(refs, mode)
	}
	slices.Sort(refs)
	var places []*place
	refuse := func(err error) (response, error) {
		if len(places) > 0 {
			s.free(places...)
		}
		return response{}, err
	}
	for _, ref := range slices.Compact(refs) {
		asks, part := s.clusterRef(ctx, r, ref)
		if asks == "" {
			continue
		}
		settings, err := endpoints.object(ref)
		if err != nil {
			return refuse(err)
		}
		var asked endpointAsked
		if raw := endpoints[endpoints.field(ref)]; len(raw) > 0 {
			if err := json.Unmarshal(raw, &asked); err != nil {
				return refuse(fail(cluster.ErrInvalid, "invalid JSON: network %s: %v", ref, err))
			}
		}
		if ref == mode && asked.MacAddress == "" {
			asked.MacAddress = mac
		}
		p, err := s.attachPlace(ctx, r, asks, ref, r.query.Get("name"), asked)
		switch {
		case err != nil:
			return refuse(err)
		case p == nil && part:
			return refuse(noNetwork(ref)) // It was removed, and the engine's part of it isn't yet.
		case p == nil:
			continue
		}
		if slices.ContainsFunc(places, func(other *place) bool { return other.network.ID == p.network.ID }) {
			places = append(places, p)
			return refuse(fail(cluster.ErrInvalid, "network %s is named twice", p.network.Spec.Name))
		}
		places = append(places, p)
		s.settle(ctx, r, p, settings)
		delete(endpoints, endpoints.field(ref))
		endpoints.set(p.part.Name, settings)
		if ref == mode {
			host.set("NetworkMode", p.part.Name)
			if r.before(versionMAC) && s.engineSpeaks(ctx, versionMAC) {
				body.set("MacAddress", p.mac())
			}
		}
	}
	if len(places) == 0 {
		return response{engine: true}, nil
	}
	// Services' names are answered at the gateway; what it doesn't answer, by the user's own servers.
	var servers []string
	_ = json.Unmarshal(host[host.field("Dns")], &servers)
	host.set("Dns", append([]string{places[0].network.Subnets[0].Gateway.String()}, servers...))
	networking.set("EndpointsConfig", endpoints)
	body.set("NetworkingConfig", networking)
	body.set("HostConfig", host)
	if r.body, err = json.Marshal(body); err != nil {
		return refuse(fmt.Errorf("encode container: %w", err))
	}
	return response{engine: true, after: s.freeUnlessMade(places...)}, nil
}

// ownContainer is what matters here of a container of the engine.
type ownContainer struct {
	ID     string `json:"Id"`
	Name   string
	Config struct{ Labels map[string]string }
}

// userContainer finds a container that is no task's.
func (s *Server) userContainer(ctx context.Context, r *request, ref string) (*ownContainer, error) {
	var found ownContainer
	if ref == "" {
		return nil, fail(cluster.ErrInvalid, "no container is named")
	}
	if err := s.engine.get(ctx, "/v"+s.engine.negotiateVersion(ctx, r.version)+"/containers/"+url.PathEscape(ref)+"/json", nil, &found); err != nil {
		return nil, err
	}
	if _, task := found.Config.Labels[taskLabel]; task {
		return nil, unsupported("other networks of container "+ref+", which is a task's", "update its service by --network-add or --network-rm")
	}
	return &found, nil
}

// connectContainer puts a container on a network.
func (s *Server) connectContainer(ctx context.Context, r *request) (response, error) {
	ref := r.vars("id")
	asks, part := s.clusterRef(ctx, r, ref)
	if asks == "" {
		return response{engine: true}, nil
	}
	body := object{}
	var asked struct {
		Container      string
		EndpointConfig endpointAsked
	}
	if json.Unmarshal(r.body, &body) != nil || json.Unmarshal(r.body, &asked) != nil {
		return response{engine: true}, nil
	}
	container, err := s.userContainer(ctx, r, asked.Container)
	if err != nil {
		return response{}, err
	}
	settings, err := body.object("EndpointConfig")
	if err != nil {
		return response{}, err
	}
	p, err := s.attachPlace(ctx, r, asks, ref, container.Name, asked.EndpointConfig)
	switch {
	case err != nil:
		return response{}, err
	case p == nil && part:
		return response{}, noNetwork(ref)
	case p == nil:
		return response{engine: true}, nil
	}
	s.settle(ctx, r, p, settings)
	body.set("EndpointConfig", settings)
	if r.body, err = json.Marshal(body); err != nil {
		s.free(p)
		return response{}, fmt.Errorf("encode endpoint: %w", err)
	}
	return response{engine: true, path: "/v" + r.version + "/networks/" + p.part.ID + "/connect", after: s.freeUnlessMade(p)}, nil
}

// disconnectContainer takes a container off a network. This node's agent sees that it has left, and
// frees its place.
func (s *Server) disconnectContainer(ctx context.Context, r *request) (response, error) {
	found, err := s.findNetwork(ctx, r, r.vars("id"), nil)
	if err != nil || len(found.parts) == 0 {
		return response{engine: true}, nil // Nothing here is on another one.
	}
	var asked struct {
		Container string
		Force     bool
	}
	if json.Unmarshal(r.body, &asked) != nil {
		return response{engine: true}, nil
	}
	if _, err := s.userContainer(ctx, r, asked.Container); err != nil && !asked.Force {
		return response{}, err
	}
	return response{engine: true, path: "/v" + r.version + "/networks/" + found.parts[0].ID + "/disconnect"}, nil
}

// statusWriter remembers the status of an answer; 0 while there is none.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	if status >= http.StatusOK {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
