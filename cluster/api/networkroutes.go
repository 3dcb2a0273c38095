package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/network"

	"skep/cluster"
	"skep/scheduler/address"
)

// What a node does of the routes of networks: it asks the leader for the cluster's and its own
// engine for others, and puts both together. An engine has, for each network of the cluster that
// the node carries, one of its own (cluster.EngineLabelNetwork): that is never shown, and not
// to be used; on a worker, which can't ask for the cluster's, it stands for it. Networks of a
// swarm that the engine itself is in aren't shown either: they must not be taken for ours.

// maxNetworksAnswer bounds what is read of a list of networks: 50,000 have 40 MB.
const maxNetworksAnswer = 64 << 20

// engineNetwork is what matters here of a network of the engine, and all that the engine says.
type engineNetwork struct {
	ID, Name, Scope string
	Labels          map[string]string
	IPAM            network.IPAM
	raw             json.RawMessage
}

// of is the ID of the cluster's network that it is a part of; empty for others.
func (n *engineNetwork) of() string { return n.Labels[cluster.EngineLabelNetwork] }

// engineNetworks asks the engine for its networks.
func (s *Server) engineNetworks(ctx context.Context, version string, query url.Values) ([]*engineNetwork, error) {
	ctx, cancel := context.WithTimeout(ctx, engineTimeout)
	defer cancel()
	answer, err := s.engine.open(ctx, "/v"+s.engine.negotiateVersion(ctx, version)+"/networks"+asQuery(query), http.Header{})
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	list := []*engineNetwork{}
	for element, err := range elements(io.LimitReader(answer.Body, maxNetworksAnswer)) {
		n := &engineNetwork{raw: element}
		if err == nil {
			err = json.Unmarshal(element, n)
		}
		if err != nil {
			return nil, fail(cluster.ErrUnavailable, "read the engine's answer: %v", err)
		}
		list = append(list, n)
	}
	return list, nil
}

// asQuery is a query as it ends a URL.
func asQuery(query url.Values) string {
	if encoded := query.Encode(); encoded != "" {
		return "?" + encoded
	}
	return ""
}

// EngineUses are the ranges of addresses that this node's engine uses for networks of its own.
// An engine that doesn't answer has none that we know of.
func (s *Server) EngineUses(ctx context.Context) (used []address.Use) {
	networks, err := s.engineNetworks(ctx, APIVersion, nil)
	if err != nil {
		s.Log.Debug("choose addresses without the engine's networks", "error", err)
	}
	for _, n := range networks {
		if n.of() != "" {
			continue
		}
		for _, config := range n.IPAM.Config {
			if prefix, err := netip.ParsePrefix(config.Subnet); err == nil {
				used = append(used, address.Use{Prefix: prefix.Masked(), By: "network " + n.Name + " of the engine on " + s.Hostname})
			}
		}
	}
	return used
}

// asksLeader tells whether there is somebody to ask for the cluster's networks.
func (s *Server) asksLeader() bool { return s.Node.Manager() != nil || s.Node.Starting() != nil }

// kept is an answer that is read here and not written to the client.
type kept struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (k *kept) Header() http.Header { return k.header }

func (k *kept) WriteHeader(status int) {
	if k.status == 0 {
		k.status = status
	}
}

func (k *kept) Write(data []byte) (int, error) {
	k.WriteHeader(http.StatusOK)
	if k.body.Len()+len(data) > maxNetworksAnswer {
		return 0, fail(errTooLarge, "the leader's answer has more than %d bytes", maxNetworksAnswer)
	}
	return k.body.Write(data)
}

// askLeader has the leader serve one of its own routes for the same client, and gives the body of
// its answer. A refusal comes back as a *passedOn.
func (s *Server) askLeader(r *request, method, pattern, id string, query url.Values, body []byte) (json.RawMessage, error) {
	i := slices.IndexFunc(s.routes, func(r route) bool { return r.method == method && r.pattern == pattern })
	path := strings.Replace(pattern, "{id}", url.PathEscape(id), 1)
	ask := r.http.Clone(r.http.Context())
	ask.Method, ask.Body, ask.ContentLength = method, http.NoBody, 0
	ask.URL = &url.URL{RawQuery: query.Encode()}
	ask.URL.Path, ask.URL.RawPath = "/v"+r.version+strings.Replace(pattern, "{id}", id, 1), "/v"+r.version+path
	vars := func(string) string { return id }
	out := &kept{header: http.Header{}}
	s.onLeader(out, ask, call{http: ask, version: r.version, path: path, route: &s.routes[i], vars: vars},
		&request{http: ask, version: r.version, vars: vars, query: query, body: body})
	if out.status < http.StatusBadRequest {
		return out.body.Bytes(), nil
	}
	var refusal errorBody
	if err := json.Unmarshal(out.body.Bytes(), &refusal); err != nil {
		return nil, fail(cluster.ErrUnavailable, "read the leader's answer: %v", err)
	}
	return nil, &passedOn{status: out.status, message: refusal.Message}
}

// The leader's routes.
const (
	pathClusterNetworks = "/skep/v1/networks"
	pathClusterNetwork  = "/skep/v1/networks/{id}"
	pathCreateNetwork   = "/skep/v1/networks/create"
	pathPruneNetworks   = "/skep/v1/networks/prune"
)

// maybe tells whether objects with this value may pass the filter of a key.
func maybe(args filters.Args, key string, value string) bool {
	return anyOfExactly(value, args.Get(key))
}

func (s *Server) listNetworks(ctx context.Context, r *request) (response, error) {
	args, err := parseFilters(r, networkKeys...)
	if err != nil {
		return response{}, err
	}
	if err := checkValues("type", args.Get("type"), "builtin", "custom"); err != nil {
		return response{}, err
	}
	list := []json.RawMessage{}
	manager := s.asksLeader()
	if manager && maybe(args, "scope", "swarm") && maybe(args, "type", "custom") {
		answer, err := s.askLeader(r, http.MethodGet, pathClusterNetworks, "", url.Values{"filters": r.query["filters"]}, nil)
		if err != nil {
			return response{}, err
		}
		if err := json.Unmarshal(answer, &list); err != nil {
			return response{}, fail(cluster.ErrUnavailable, "read the leader's answer: %v", err)
		}
	}
	if !maybe(args, "scope", "local") {
		return response{body: list}, nil
	}
	networks, err := s.engineNetworks(ctx, r.version, url.Values{"filters": r.query["filters"]})
	if err != nil {
		return response{}, err
	}
	for _, n := range networks {
		switch {
		case n.of() == "" && n.Scope != "swarm":
			list = append(list, n.raw)
		case n.of() != "" && !manager:
			// Which is all that a worker knows of it.
			var shown network.Inspect
			if err := json.Unmarshal(n.raw, &shown); err != nil {
				return response{}, fail(cluster.ErrUnavailable, "read the engine's answer: %v", err)
			}
			raw, err := json.Marshal(asCluster(shown))
			if err != nil {
				return response{}, fmt.Errorf("encode network %s: %w", n.Name, err)
			}
			list = append(list, raw)
		}
	}
	return response{body: list}, nil
}

// engineMatches are the engine's networks that a reference may mean.
type engineMatches struct {
	// whole, named and begin are those with this ID, this name, and an ID that begins so.
	whole, named, begin []*engineNetwork
	// part is the ID of a network of the cluster, if the reference is of the engine's part of it.
	part string
	// parts are the engine's networks for those of the cluster, by their IDs.
	parts map[string][]*engineNetwork
}

func matchEngine(networks []*engineNetwork, ref string) engineMatches {
	m := engineMatches{parts: map[string][]*engineNetwork{}}
	for _, n := range networks {
		if of := n.of(); of != "" {
			m.parts[of] = append(m.parts[of], n)
			if n.Name == ref || strings.HasPrefix(n.ID, ref) || of == ref {
				m.part = of
			}
			continue
		}
		switch {
		case n.ID == ref:
			m.whole = append(m.whole, n)
		case n.Name == ref:
			m.named = append(m.named, n)
		case strings.HasPrefix(n.ID, ref):
			m.begin = append(m.begin, n)
		}
	}
	return m
}

// foundNetwork is what a reference to a network means. It is the engine's when id is empty.
type foundNetwork struct {
	id, name string
	// shown is the leader's account of the cluster's; a worker has none.
	shown *network.Inspect
	// parts are the engine's networks for it.
	parts []*engineNetwork
}

// theEngines is a network that isn't the cluster's: the engine knows it, or says that it doesn't.
var theEngines = &foundNetwork{}

// findNetwork tells what a reference means: a whole ID, a whole name, or the beginning of an ID,
// of the cluster's networks and the engine's together.
func (s *Server) findNetwork(ctx context.Context, r *request, ref string, query url.Values) (*foundNetwork, error) {
	networks, err := s.engineNetworks(ctx, r.version, nil)
	if err != nil {
		s.Log.Debug("look for a network of the cluster only", "error", err)
	}
	here := matchEngine(networks, ref)
	if len(here.whole) > 0 {
		return theEngines, nil
	}
	if !s.asksLeader() {
		if parts := here.parts[here.part]; len(here.named) == 0 && len(parts) > 0 {
			return &foundNetwork{id: here.part, name: parts[0].Name, parts: parts}, nil
		}
		return theEngines, nil
	}
	asked := ref
	for _, part := range here.parts[here.part] {
		if part.ID == ref {
			asked = here.part
		}
	}
	answer, err := s.askLeader(r, http.MethodGet, pathClusterNetwork, asked, query, nil)
	if err != nil {
		var refusal *passedOn
		switch known := errors.As(err, &refusal); {
		case len(here.named) == 1:
			return theEngines, nil // also while there is no leader
		case !known || refusal.status != http.StatusNotFound:
			return nil, err
		case here.part != "" && len(here.begin) == 0:
			return nil, noNetwork(ref) // It was removed, and the engine's part of it isn't yet.
		}
		return theEngines, nil
	}
	found := &foundNetwork{shown: new(network.Inspect)}
	if err := json.Unmarshal(answer, found.shown); err != nil {
		return nil, fail(cluster.ErrUnavailable, "read the leader's answer: %v", err)
	}
	found.id, found.name = found.shown.ID, found.shown.Name
	found.parts = here.parts[found.id]
	switch {
	case found.id == asked:
		return found, nil
	case found.name != ref && len(here.named) == 1:
		return theEngines, nil
	case len(here.named) > 0, found.name != ref && len(here.begin) > 0:
		return nil, fail(cluster.ErrInvalid, "network %s is ambiguous (the cluster has one, and the engine of this node another): use its whole ID", ref)
	}
	return found, nil
}

func (s *Server) inspectNetwork(ctx context.Context, r *request) (response, error) {
	ref, swarmScope := r.vars("id"), r.query.Get("scope") == "swarm"
	for _, n := range cluster.PredefinedNetworks() {
		if ref == n.ID || swarmScope && ref == n.Name || len(ref) >= shortID && strings.HasPrefix(n.ID, ref) {
			return response{body: renderPredefined(n)}, nil
		}
	}
	if r.query.Get("scope") == "local" {
		return response{engine: true}, nil
	}
	query := url.Values{"verbose": r.query["verbose"]}
	found, err := s.findNetwork(ctx, r, ref, query)
	switch {
	case err != nil:
		return response{}, err
	case found == theEngines:
		if swarmScope {
			return response{}, noNetwork(ref)
		}
		return response{engine: true}, nil
	}
	return response{body: s.completeNetwork(ctx, r, found)}, nil
}

// completeNetwork is the account of a network of the cluster with this node's containers on it.
func (s *Server) completeNetwork(ctx context.Context, r *request, found *foundNetwork) *network.Inspect {
	shown := found.shown
	for _, part := range found.parts {
		var of network.Inspect
		if err := s.engine.get(ctx, "/v"+s.engine.negotiateVersion(ctx, r.version)+"/networks/"+part.ID, nil, &of); err != nil {
			s.Log.Debug("a network without the containers that are on it", "error", err)
			continue
		}
		if shown == nil {
			of = asCluster(of)
			shown = &of
		}
		if shown.Containers == nil {
			shown.Containers = map[string]network.EndpointResource{}
		}
		maps.Copy(shown.Containers, of.Containers)
		if shown.Driver != cluster.OverlayDriver && len(shown.IPAM.Config) == 0 {
			shown.IPAM = of.IPAM // It is the engine that chose.
		}
	}
	if shown == nil {
		shown = &network.Inspect{ID: found.id, Name: found.name, Scope: "swarm", Driver: cluster.OverlayDriver}
	}
	return shown
}

// asCluster shows the engine's part of a network of the cluster as that network.
func asCluster(n network.Inspect) network.Inspect {
	if strings.HasPrefix(n.Options["com.docker.network.bridge.name"], "skb") {
		n.Driver, n.Options = cluster.OverlayDriver, nil
	}
	n.ID, n.Scope = n.Labels[cluster.EngineLabelNetwork], "swarm"
	n.Labels = maps.Clone(n.Labels)
	delete(n.Labels, cluster.EngineLabelNetwork)
	delete(n.Labels, cluster.EngineLabelNode)
	return n
}

// networkAsked is what of a network to be made says whether it would be the cluster's.
type networkAsked struct {
	Name, Driver, Scope string
	Ingress             bool
}

// spans tells whether it would be the cluster's.
func (n networkAsked) spans() bool {
	return n.Driver == cluster.OverlayDriver || strings.EqualFold(n.Scope, "swarm") || n.Ingress
}

func (s *Server) createNetwork(ctx context.Context, r *request) (response, error) {
	var wanted networkAsked
	if err := r.decode(&wanted); err != nil {
		return response{}, err
	}
	if !wanted.spans() {
		if s.asksLeader() && wanted.Name != "" {
			// Without a leader the engine is to go on. Then who refers to the name has to say which.
			answer, err := s.askLeader(r, http.MethodGet, pathClusterNetworks, "", url.Values{"filters": {filterText("name", wanted.Name)}}, nil)
			if err == nil && !bytes.Equal(bytes.TrimSpace(answer), []byte("[]")) {
				return response{}, errNetworkTaken(wanted.Name)
			}
		}
		return response{engine: true}, nil
	}
	if s.asksLeader() && !reservedNetworkName(wanted.Name) {
		networks, err := s.engineNetworks(ctx, r.version, nil)
		if err != nil {
			s.Log.Debug("make a network without asking the engine for its name", "error", err)
		}
		if slices.ContainsFunc(networks, func(n *engineNetwork) bool { return n.of() == "" && n.Name == wanted.Name }) {
			return response{}, errNetworkTaken(wanted.Name)
		}
	}
	answer, err := s.askLeader(r, http.MethodPost, pathCreateNetwork, "", nil, r.body)
	if err != nil {
		return response{}, err
	}
	return response{status: http.StatusCreated, body: answer}, nil
}

// filterText is a filter of one value, as clients write it.
func filterText(key, value string) string {
	// Encoding strings doesn't fail.
	text, _ := filters.ToJSON(filters.NewArgs(filters.Arg(key, value)))
	return text
}

func (s *Server) removeNetwork(ctx context.Context, r *request) (response, error) {
	ref := r.vars("id")
	for _, n := range cluster.PredefinedNetworks() {
		if ref == n.ID {
			return response{}, fail(cluster.ErrPrecondition, "network %s (%s) is a swarm predefined network and cannot be removed", n.ID, n.Name)
		}
	}
	found, err := s.findNetwork(ctx, r, ref, nil)
	switch {
	case err != nil:
		return response{}, err
	case found == theEngines:
		return response{engine: true}, nil
	case found.shown == nil:
		return response{}, s.notManager()
	}
	_, err = s.askLeader(r, http.MethodDelete, pathClusterNetwork, found.id, nil, nil)
	return response{status: http.StatusNoContent}, err
}

// pruneNetworks removes networks that nobody uses: the engine's, but for those that it has for the
// cluster's, and the cluster's.
func (s *Server) pruneNetworks(ctx context.Context, r *request) (response, error) {
	args, err := parseFilters(r, "label", "label!", "until")
	if err != nil {
		return response{}, err
	}
	query := url.Values{"filters": r.query["filters"]}
	answer := network.PruneReport{NetworksDeleted: []string{}}
	if s.asksLeader() {
		removed, err := s.askLeader(r, http.MethodPost, pathPruneNetworks, "", query, nil)
		if err != nil {
			return response{}, err
		}
		if err := json.Unmarshal(removed, &answer); err != nil {
			return response{}, fail(cluster.ErrUnavailable, "read the leader's answer: %v", err)
		}
	}
	args.Add("label!", cluster.EngineLabelNetwork)
	encoded, err := filters.ToJSON(args)
	if err != nil {
		return response{}, fail(cluster.ErrInvalid, "invalid filter")
	}
	var engines network.PruneReport
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	err = s.engine.ask(ctx, http.MethodPost, "/v"+s.engine.negotiateVersion(ctx, r.version)+"/networks/prune?"+url.Values{"filters": {encoded}}.Encode(), &engines)
	if err != nil {
		return response{}, err
	}
	answer.NetworksDeleted = append(answer.NetworksDeleted, engines.NetworksDeleted...)
	return response{body: answer}, nil
}
