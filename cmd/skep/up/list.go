package up

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/swarm"
	"gopkg.in/yaml.v3"

	"skep/cluster"
)

// Machine is a line of the list: a machine that is to be a node of the cluster.
type Machine struct {
	// Host is where ssh finds it, as ssh takes it: a name of its configuration,
	// user@host, or ssh://user@host:port.
	Host string `yaml:"host"`
	// Role is what it is to be; empty is a manager.
	Role swarm.NodeRole `yaml:"role,omitempty"`
	// Addr is the address by which the others reach it; empty is the one that ssh
	// reaches it by, or its only one.
	Addr string `yaml:"addr,omitempty"`
	// Labels are those that the node shall have, and, by nil, those that it shall not have. Others
	// are left alone: somebody may have set them by other means.
	Labels map[string]*string `yaml:"labels,omitempty"`
	// Availability is what it shall have; empty leaves it as it is.
	Availability swarm.NodeAvailability `yaml:"availability,omitempty"`
}

// List is the machines that are to be the cluster: all that is kept between two runs.
type List struct {
	Machines []Machine `yaml:"machines"`
}

// mostMachines bounds the list.
const mostMachines = 1000

// Parse reads a list.
func Parse(text []byte) (l List, err error) {
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	if err := dec.Decode(&l); err != nil && !errors.Is(err, io.EOF) {
		return List{}, fmt.Errorf("read the list of machines: %w", err)
	}
	for i := range l.Machines {
		if l.Machines[i].Role == "" {
			l.Machines[i].Role = swarm.NodeRoleManager
		}
	}
	return l, l.check()
}

// check refuses what can't be meant.
func (l List) check() error {
	seen, managers := map[string]bool{}, 0
	for _, m := range l.Machines {
		switch {
		case seen[m.Host]:
			return fmt.Errorf("machine %s is in the list twice", m.Host)
		case m.Role == swarm.NodeRoleManager:
			managers++
		}
		seen[m.Host] = true
		if err := m.check(); err != nil {
			return err
		}
	}
	switch {
	case len(l.Machines) == 0:
		return errors.New("there are no machines in the list: name them, as in \"skep up root@192.168.1.11 root@192.168.1.12 root@192.168.1.13\"")
	case len(l.Machines) > mostMachines:
		return fmt.Errorf("%d machines are more than %d", len(l.Machines), mostMachines)
	case managers == 0:
		return errors.New("there is no manager among the machines: one must be, and three or five go on when one or two are lost")
	}
	return nil
}

func (m Machine) check() error {
	if err := CheckHost(m.Host); err != nil {
		return err
	}
	if m.Role != swarm.NodeRoleManager && m.Role != swarm.NodeRoleWorker {
		return fmt.Errorf("machine %s: role %q: want manager or worker", m.Host, m.Role)
	}
	if m.Addr != "" {
		if ip, err := netip.ParseAddr(m.Addr); err != nil || ip.IsUnspecified() || ip.IsLoopback() || ip.IsMulticast() || ip.Zone() != "" {
			return fmt.Errorf("machine %s: addr %q: want the IP address by which the other machines reach it", m.Host, m.Addr)
		}
	}
	switch m.Availability {
	case "", swarm.NodeAvailabilityActive, swarm.NodeAvailabilityPause, swarm.NodeAvailabilityDrain:
	default:
		return fmt.Errorf("machine %s: availability %q: want active, pause or drain", m.Host, m.Availability)
	}
	set := map[string]string{}
	for label, value := range m.Labels {
		if value != nil {
			set[label] = *value
		}
		if label == "" || strings.ContainsAny(label, "= \t\n") {
			return fmt.Errorf("machine %s: label %q: want a name without spaces and =", m.Host, label)
		}
	}
	if err := cluster.CheckLabels(cluster.OnNode, set); err != nil {
		return fmt.Errorf("machine %s: %w", m.Host, err)
	}
	return nil
}

// CheckHost refuses what ssh would take for an option, or a shell for more than a word.
func CheckHost(host string) error {
	if host == "" || host[0] == '-' || strings.ContainsFunc(host, func(c rune) bool {
		return c <= ' ' || c > '~' || strings.ContainsRune("'\"`$\\;&|<>(){}*?!", c)
	}) {
		return fmt.Errorf("machine %q: want what ssh takes: a host, user@host, or ssh://user@host:port", host)
	}
	return nil
}

// With is the list with machines added that it hasn't, and whether there were any. One
// that it has must be the same there.
func (l List) With(named []Machine) (all List, added bool, err error) {
	all.Machines = slices.Clone(l.Machines)
	for _, m := range named {
		i := slices.IndexFunc(all.Machines, func(o Machine) bool { return o.Host == m.Host })
		if i < 0 {
			all.Machines, added = append(all.Machines, m), true
			continue
		}
		known := all.Machines[i]
		if known.Role != m.Role {
			return List{}, false, fmt.Errorf("machine %s is a %s in the list: change that there", m.Host, known.Role)
		}
		for name, value := range m.Labels {
			switch have, is := known.Labels[name]; {
			case value == nil && (!is || have != nil):
				return List{}, false, fmt.Errorf("machine %s hasn't \"%s: null\" in the list: change that there", m.Host, name)
			case value != nil && (have == nil || *have != *value):
				return List{}, false, fmt.Errorf("machine %s hasn't label %s=%s in the list: change that there", m.Host, name, *value)
			}
		}
	}
	return all, added, all.check()
}

// Edit adds to the text of a list, which may be empty, the machines that it hasn't; what
// somebody wrote there stays as it is.
func Edit(text []byte, all List) ([]byte, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return nil, fmt.Errorf("read the list of machines: %w", err)
	}
	if doc.Kind == 0 {
		doc = yaml.Node{Kind: yaml.DocumentNode, Content: []*yaml.Node{{Kind: yaml.MappingNode, HeadComment: "The machines of a cluster, for \"skep up\", \"skep down\" and \"skep image push\"."}}}
	}
	top := doc.Content[0]
	var machines *yaml.Node
	for i := 0; i+1 < len(top.Content); i += 2 {
		if top.Content[i].Value == "machines" {
			machines = top.Content[i+1]
		}
	}
	if machines == nil || machines.Kind != yaml.SequenceNode {
		machines = &yaml.Node{Kind: yaml.SequenceNode}
		top.Content = []*yaml.Node{{Kind: yaml.ScalarNode, Value: "machines"}, machines}
	}
	there := map[string]bool{}
	for _, entry := range machines.Content {
		var m Machine
		if err := entry.Decode(&m); err != nil {
			return nil, fmt.Errorf("read the list of machines: %w", err)
		}
		there[m.Host] = true
	}
	for _, m := range all.Machines {
		if there[m.Host] {
			continue
		}
		var entry yaml.Node
		if err := entry.Encode(m); err != nil {
			return nil, err
		}
		machines.Content = append(machines.Content, &entry)
	}
	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	if err := enc.Encode(&doc); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// Hosts are the machines' hosts, in the list's order.
func (l List) Hosts() []string {
	var hosts []string
	for _, m := range l.Machines {
		hosts = append(hosts, m.Host)
	}
	return hosts
}

// ParseLabels reads labels from a command line: NAME=VALUE, or NAME- for one that the node shall not have.
func ParseLabels(words []string) (map[string]*string, error) {
	var labels map[string]*string
	for _, word := range words {
		name, value, set := strings.Cut(word, "=")
		unset := !set && strings.HasSuffix(word, "-")
		if !set && !unset {
			return nil, fmt.Errorf("--label %q: want NAME=VALUE, or NAME- for one that the nodes shall not have", word)
		}
		if labels == nil {
			labels = map[string]*string{}
		}
		if unset {
			labels[strings.TrimSuffix(word, "-")] = nil
		} else {
			labels[name] = &value
		}
	}
	return labels, nil
}

// labels are, in an order, those that a machine's node lacks of what the list says, and those that it has
// and shall not have.
func (m Machine) labels(has map[string]string) (missing, surplus []string) {
	for _, name := range slices.Sorted(maps.Keys(m.Labels)) {
		have, is := has[name]
		switch want := m.Labels[name]; {
		case want == nil && is:
			surplus = append(surplus, name)
		case want != nil && (!is || have != *want):
			missing = append(missing, name+"="+*want)
		}
	}
	return missing, surplus
}
