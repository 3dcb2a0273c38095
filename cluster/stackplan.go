package cluster

import "github.com/docker/docker/api/types/swarm"

// PlanRequest asks what a client's changes of services would do, which nobody makes. It is done
// as if the services to remove had been removed, and the objects to create created before.
type PlanRequest struct {
	// Services are as the client would create or update them.
	Services []swarm.ServiceSpec
	// Remove are names of services.
	Remove []string
	// Networks, Secrets and Configs are names of those that the client would create. Services
	// refer to them by PlannedID and their name; to networks by the name alone.
	Networks, Secrets, Configs []string
}

// PlannedID stands in a service's references for the ID that an object to be created will have.
const PlannedID = "planned"

// What a plan does to a service.
const (
	PlanCreate    = "create"
	PlanUpdate    = "update"
	PlanUnchanged = "unchanged"
)

// PlannedService is what would become of a service.
type PlannedService struct {
	Name   string
	Action string
	// Restarts tells whether tasks would be replaced by others.
	Restarts    bool
	Differences []Difference `json:",omitempty"`
	// Refused is why the cluster would refuse it.
	Refused string `json:",omitempty"`
	// Waits is why some of its tasks would have to wait for a node.
	Waits string `json:",omitempty"`
}

// LabelStackData says of a secret or config which entry of its stack's file it is: it can have
// several, of other content each.
const LabelStackData = "skep.stack.data"

// LabelStackDeploy says of a config that it remembers a deployment of its stack, and which.
const LabelStackDeploy = "skep.stack.deploy"

// StackData is a secret or config that is what a stack's file has, or had before.
type StackData struct {
	ID, Name string
	// Same tells that it has the content that was asked about.
	Same bool
}
