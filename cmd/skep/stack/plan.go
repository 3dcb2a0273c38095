package stack

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/distribution/reference"
	"github.com/docker/cli/cli/compose/convert"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/registry"
	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

// Live is what a cluster has of a stack, and the secrets and configs that it may refer to.
type Live struct {
	Services []swarm.Service
	// Networks, Secrets and Configs are all of the cluster's.
	Networks []network.Summary
	Secrets  []swarm.Secret
	Configs  []swarm.Config
}

// What is done to an object, beside what a plan does to a service.
const (
	Remove = "remove"
	// Left is an object that the file doesn't have, and that stays.
	Left = "left"
)

// Change is what becomes of one object of a stack.
type Change struct {
	Kind, Name, Action string
	// RestartsTasks tells whether tasks are replaced by others.
	RestartsTasks bool                 `json:",omitempty"`
	Differences   []cluster.Difference `json:",omitempty"`
	// Refused is why the cluster refuses it, Waits why tasks will have to wait for a node.
	Refused string `json:",omitempty"`
	Waits   string `json:",omitempty"`
	Note    string `json:",omitempty"`
}

// Changed tells whether anything is done.
func (c Change) Changed() bool { return c.Action != cluster.PlanUnchanged && c.Action != Left }

// Choose has an entry of the file be one of the secrets or configs that there are, if one has its
// content, or else a new one of a name that is free: what services refer to never changes, so
// that they can go back to it. found are those that are, or were, what the entry is.
func Choose(d *Data, found []cluster.StackData) (id string, change Change) {
	base := d.Spec.Name
	change = Change{Kind: d.Kind, Name: base, Action: cluster.PlanUnchanged}
	number, same := 0, cluster.StackData{}
	for _, f := range found {
		n := numberOf(base, f.Name)
		if f.Same && (same.ID == "" || n > numberOf(base, same.Name)) {
			same = f
		}
		number = max(number, n)
	}
	switch {
	case same.ID != "" && (!d.Named || same.Name == base):
		d.Spec.Name, change.Name = same.Name, same.Name
		return same.ID, change
	case number == 0:
		change.Action = cluster.PlanCreate
	case d.Named:
		change.Refused = fmt.Sprintf("it has other content, and the file says its name: give it another one, or leave name: out of %ss.%s, and each content gets its own", d.Kind, d.Key)
		change.Action = cluster.PlanUpdate
		return "", change
	default:
		d.Spec.Name = base + "-" + strconv.Itoa(number+1)
		d.Spec.Labels = maps.Clone(d.Spec.Labels)
		d.Spec.Labels[cluster.LabelStackData] = d.Key
		change.Name, change.Action, change.Note = d.Spec.Name, cluster.PlanCreate, "its content is another one"
	}
	return cluster.PlannedID, change
}

// Asked is what to ask the cluster of an entry, to Choose.
func (d Data) Asked() swarm.ConfigSpec {
	spec := d.Spec
	spec.Labels = maps.Clone(spec.Labels)
	spec.Labels[cluster.LabelStackData] = d.Key
	return spec
}

// numberOf is the how manieth content of an entry a name is of; 0 when it is none of its.
func numberOf(base, name string) int {
	if name == base {
		return 1
	}
	rest, ok := strings.CutPrefix(name, base+"-")
	n, err := strconv.Atoi(rest)
	if !ok || err != nil || n < 2 {
		return 0
	}
	return n
}

// Refer has the services refer to the secrets and configs that were chosen. chosen has for each
// kind and name in the file which one that is; others must be there. What has an ID already is of
// a deployment before: then no other of that name will do.
func (s *Stack) Refer(live Live, chosen map[string]Chosen) error {
	there := map[string]string{} // IDs by kind and name
	for _, secret := range live.Secrets {
		there["secret "+secret.Spec.Name] = secret.ID
	}
	for _, config := range live.Configs {
		there["config "+config.Spec.Name] = config.ID
	}
	lookup := func(kind, name, id string) (Chosen, error) {
		what := kind + " " + name
		switch c, ok := chosen[what]; {
		case ok && id == "":
			return c, nil
		case there[what] == "" && id == "":
			return Chosen{}, fmt.Errorf("%s is external, and isn't there: create it first", what)
		case id != "" && there[what] != id:
			return Chosen{}, fmt.Errorf("%s, as it was then, was removed", what)
		}
		return Chosen{there[what], name}, nil
	}
	for i := range s.Services {
		container := s.Services[i].TaskTemplate.ContainerSpec
		for _, ref := range container.Secrets {
			c, err := lookup("secret", ref.SecretName, ref.SecretID)
			if err != nil {
				return err
			}
			ref.SecretID, ref.SecretName = c.ID, c.Name
		}
		for _, ref := range container.Configs {
			c, err := lookup("config", ref.ConfigName, ref.ConfigID)
			if err != nil {
				return err
			}
			ref.ConfigID, ref.ConfigName = c.ID, c.Name
		}
	}
	return nil
}

// Chosen is the secret or config that an entry of the file is.
type Chosen struct{ ID, Name string }

// Keep has a service keep what isn't the file's to say: how often it was restarted by hand.
func Keep(spec *swarm.ServiceSpec, live *swarm.ServiceSpec) {
	spec.TaskTemplate.ForceUpdate = live.TaskTemplate.ForceUpdate
}

// KeepImage has a service keep its image of the digest that it has, if the file says the same image
// as when it was deployed last.
func KeepImage(spec *swarm.ServiceSpec, live *swarm.ServiceSpec) bool {
	container := live.TaskTemplate.ContainerSpec
	if container == nil || live.Labels[convert.LabelImage] != spec.Labels[convert.LabelImage] {
		return false
	}
	spec.TaskTemplate.ContainerSpec.Image = container.Image
	if p := live.TaskTemplate.Placement; p != nil {
		spec.TaskTemplate.Placement.Platforms = p.Platforms
	}
	return true
}

// Tag has an image be of the tag that it is of if none is written, as docker's client has it.
func Tag(spec *swarm.ServiceSpec) {
	container := spec.TaskTemplate.ContainerSpec
	if named, err := reference.ParseNormalizedNamed(container.Image); err == nil {
		container.Image = reference.FamiliarString(reference.TagNameOnly(named))
	}
}

// Pin has a service's image be of the digest that a registry has for it now, and run on what it is
// for, as docker's client has it.
func Pin(spec *swarm.ServiceSpec, found registry.DistributionInspect) {
	container := spec.TaskTemplate.ContainerSpec
	if named, err := reference.ParseNormalizedNamed(container.Image); err == nil {
		if _, pinned := named.(reference.Canonical); !pinned {
			if with, err := reference.WithDigest(named, found.Descriptor.Digest); err == nil {
				container.Image = reference.FamiliarString(with)
			}
		}
	}
	spec.TaskTemplate.Placement.Platforms = append(spec.TaskTemplate.Placement.Platforms, cluster.ImagePlatforms(found)...)
}

// Pinned tells whether an image is of a digest that is written.
func Pinned(image string) bool {
	named, err := reference.ParseNormalizedNamed(image)
	_, pinned := named.(reference.Canonical)
	return err == nil && pinned
}

// NetworkChanges says what becomes of networks. One that is there stays as it is.
func (s *Stack) NetworkChanges(live Live) (changes []Change) {
	there := map[string]network.Summary{}
	for _, n := range live.Networks {
		there[n.Name] = n
	}
	for _, wanted := range s.Networks {
		change := Change{Kind: "network", Name: wanted.Name, Action: cluster.PlanCreate}
		n, ok := there[wanted.Name]
		switch {
		case ok && n.Labels[convert.LabelNamespace] != s.Name:
			change.Refused = "there is a network of that name that isn't the stack's: if it is to be used, have it be external: true"
		case ok:
			change.Action = cluster.PlanUnchanged
			if what := networkDiffers(wanted, n); len(what) > 0 {
				change.Note = "it is another one than the file says (" + strings.Join(what, ", ") + "), and stays: remove it, and deploy again, to have it so"
			}
		}
		changes = append(changes, change)
	}
	return changes
}

func networkDiffers(wanted Network, is network.Summary) (what []string) {
	say := func(differ bool, word string) {
		if differ {
			what = append(what, word)
		}
	}
	say(wanted.Driver != is.Driver, "driver")
	say(wanted.Internal != is.Internal, "internal")
	say(wanted.Attachable != is.Attachable, "attachable")
	for key, value := range wanted.Options {
		if is.Options[key] != value {
			say(true, "driver option "+key)
		}
	}
	if wanted.IPAM != nil {
		for _, pool := range wanted.IPAM.Config {
			if !slices.ContainsFunc(is.IPAM.Config, func(p network.IPAMConfig) bool { return p.Subnet == pool.Subnet }) {
				say(pool.Subnet != "", "subnet "+pool.Subnet)
			}
		}
	}
	slices.Sort(what)
	return what
}

// Request is what to ask the cluster of what would become of the services.
func (s *Stack) Request(live Live, changes []Change, prune bool) cluster.PlanRequest {
	asked := cluster.PlanRequest{Services: s.Services}
	for _, c := range changes {
		if c.Action != cluster.PlanCreate {
			continue
		}
		switch c.Kind {
		case "network":
			asked.Networks = append(asked.Networks, c.Name)
		case "secret":
			asked.Secrets = append(asked.Secrets, c.Name)
		case "config":
			asked.Configs = append(asked.Configs, c.Name)
		}
	}
	if prune {
		for _, service := range s.Unwanted(live) {
			asked.Remove = append(asked.Remove, service.Spec.Name)
		}
	}
	return asked
}

// Unwanted are the stack's services that the file doesn't have.
func (s *Stack) Unwanted(live Live) (services []swarm.Service) {
	for _, service := range live.Services {
		if !slices.ContainsFunc(s.Services, func(spec swarm.ServiceSpec) bool { return spec.Name == service.Spec.Name }) {
			services = append(services, service)
		}
	}
	slices.SortFunc(services, func(a, b swarm.Service) int { return cmp.Compare(a.Spec.Name, b.Spec.Name) })
	return services
}

// ServiceChanges says what becomes of services, as the cluster planned it.
func (s *Stack) ServiceChanges(live Live, planned []cluster.PlannedService, prune bool) (changes []Change) {
	for _, p := range planned {
		change := Change{Kind: "service", Name: p.Name, Action: p.Action, RestartsTasks: p.Restarts,
			Differences: p.Differences, Refused: p.Refused, Waits: p.Waits}
		ours := slices.ContainsFunc(live.Services, func(service swarm.Service) bool { return service.Spec.Name == p.Name })
		if p.Action != cluster.PlanCreate && !ours {
			change.Refused = "there is a service of that name that isn't the stack's: remove it, or name the one in the file otherwise"
		}
		changes = append(changes, change)
	}
	for _, service := range s.Unwanted(live) {
		change := Change{Kind: "service", Name: service.Spec.Name, Action: Left, Note: "the file doesn't have it: --prune removes it"}
		if prune {
			change.Action, change.Note = Remove, ""
		}
		changes = append(changes, change)
	}
	return changes
}

// Show writes changes for people. Of what stays as it is there is nothing, unless there is
// something to say of it.
func Show(w io.Writer, changes []Change) error {
	for _, c := range changes {
		if !c.Changed() && c.Note == "" && c.Refused == "" {
			continue
		}
		line := fmt.Sprintf("%-9s %s %s", c.Action, c.Kind, c.Name)
		if c.RestartsTasks {
			line += " (restarts tasks)"
		}
		if c.Note != "" {
			line += ": " + c.Note
		}
		fmt.Fprintln(w, line)
		t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
		for _, d := range c.Differences {
			fmt.Fprintf(t, "    %s\n", d)
		}
		if err := t.Flush(); err != nil {
			return err
		}
		if c.Waits != "" {
			fmt.Fprintf(w, "    would wait: %s\n", c.Waits)
		}
		if c.Refused != "" {
			fmt.Fprintf(w, "    refused: %s\n", c.Refused)
		}
	}
	return nil
}

// Entry is a secret or config with other data, as an entry of a file would be: of its stack's
// file, if it is of one.
func Entry(kind string, spec swarm.ConfigSpec, data []byte) Data {
	d := Data{Kind: kind, Spec: spec}
	d.Spec.Data = data
	d.Spec.Labels = maps.Clone(spec.Labels)
	if d.Spec.Labels == nil {
		d.Spec.Labels = map[string]string{}
	}
	namespace := ""
	if stack := spec.Labels[convert.LabelNamespace]; stack != "" {
		namespace = stack + "_"
	}
	d.Key = cmp.Or(spec.Labels[cluster.LabelStackData], strings.TrimPrefix(spec.Name, namespace))
	d.Spec.Name = namespace + d.Key
	if numberOf(d.Spec.Name, spec.Name) == 0 { // Its file gave it a name.
		d.Spec.Name = spec.Name
	}
	delete(d.Spec.Labels, cluster.LabelStackData)
	return d
}

// Repoint has a service refer to one content of a secret or config where it refers to others of the
// same, and tells whether it did.
func Repoint(spec *swarm.ServiceSpec, kind string, from []cluster.StackData, to Chosen) (changed bool) {
	other := func(id string) bool {
		return id != to.ID && slices.ContainsFunc(from, func(d cluster.StackData) bool { return d.ID == id })
	}
	container := spec.TaskTemplate.ContainerSpec
	if container == nil {
		return false
	}
	if kind == "config" {
		for _, ref := range container.Configs {
			if other(ref.ConfigID) {
				ref.ConfigID, ref.ConfigName, changed = to.ID, to.Name, true
			}
		}
		return changed
	}
	for _, ref := range container.Secrets {
		if other(ref.SecretID) {
			ref.SecretID, ref.SecretName, changed = to.ID, to.Name, true
		}
	}
	return changed
}
