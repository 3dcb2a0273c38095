package network

import "context"

// Plane is where the objects are: a kernel, or what takes its place in tests.
type Plane interface {
	// Dump lists the objects of the cluster that there are. Objects of others, and what
	// the kernel adds by itself, aren't among them.
	Dump(ctx context.Context, clusterID string) (Existing, error)
	// Apply carries out steps, in their order. A step that fails doesn't keep those after
	// it from being tried; the error joins what each said.
	Apply(ctx context.Context, steps []Step) error
	// Watch calls changed when somebody may have changed something that matters, the caller
	// included, until ctx ends or it can't go on. changed doesn't block.
	Watch(ctx context.Context, changed func()) error
}

// Reserver is a Plane that can keep ports from programs of the machine: these and no others, until it is called
// again or the process ends. It lists those that others have.
type Reserver interface {
	Reserve(ports []Port) (taken []string)
}

// Existing is what there is.
type Existing struct {
	Objects []Object
	// Ports are the ports of the cluster's bridges that skep didn't make, by bridge:
	// containers' ends.
	Ports map[string][]string
	// Guarded are the families (true: IPv6) whose forwarded packets an engine's firewall looks at.
	// Others need no Pass.
	Guarded map[bool]bool
}
