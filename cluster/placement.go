package cluster

import (
	"regexp"
	"strconv"
	"strings"

	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/go-units"
)

// LabelReserveCPUs and LabelReserveMemory on a node are what of it services can't
// reserve: a number of CPUs such as 0.5, and a size such as 512m.
const (
	LabelReserveCPUs   = "skep.reserve.cpus"
	LabelReserveMemory = "skep.reserve.memory"
)

// LabelAffinity and LabelAntiAffinity on a service name others, by name or ID, with
// commas between them. With the former its tasks are placed only on nodes that each
// of the others has a task on. With the latter no task of it is placed on a node
// where one of the others is, nor one of the others where it is.
const (
	LabelAffinity     = "skep.affinity"
	LabelAntiAffinity = "skep.anti-affinity"
)

// Neighbours are the services that one of these labels names.
func Neighbours(labels map[string]string, label string) []string {
	text, ok := labels[label]
	if !ok {
		return nil
	}
	names := strings.Split(text, ",")
	for i, name := range names {
		names[i] = strings.TrimSpace(name)
	}
	return names
}

var cpuNumber = regexp.MustCompile(`^\d{1,6}(\.\d{1,9})?$`)

// ReadCPUs reads a number of CPUs, in billionths.
func ReadCPUs(text string) (nano int64, err error) {
	if !cpuNumber.MatchString(text) {
		return 0, Errorf(ErrInvalid, "a number of CPUs such as 0.5")
	}
	cpus, err := strconv.ParseFloat(text, 64)
	return int64(cpus*1e9 + 0.5), err
}

// ReadSize reads a number of bytes, with or without a unit.
func ReadSize(text string) (bytes int64, err error) {
	if bytes, err = units.RAMInBytes(text); err != nil || bytes < 0 {
		return 0, Errorf(ErrInvalid, "a size such as 512m")
	}
	return bytes, nil
}

// Capacity is how much of the node's CPUs and memory services can reserve: what the
// machine has, less what its labels keep back. A label that can't be read keeps
// back nothing.
func (n *Node) Capacity() (nanoCPUs, memoryBytes int64) {
	nanoCPUs, memoryBytes = n.Description.Resources.NanoCPUs, n.Description.Resources.MemoryBytes
	if text, ok := n.Spec.Labels[LabelReserveCPUs]; ok {
		reserve, _ := ReadCPUs(text)
		nanoCPUs = max(nanoCPUs-reserve, 0)
	}
	if text, ok := n.Spec.Labels[LabelReserveMemory]; ok {
		reserve, _ := ReadSize(text)
		memoryBytes = max(memoryBytes-reserve, 0)
	}
	return nanoCPUs, memoryBytes
}

// MaxPreferences is how many preferences a service may have: each is a level of a tree of
// all nodes.
const MaxPreferences = 16

// CheckPreferences refuses preferences that mean nothing. Swarm knows labels only,
// and ignores the rest in silence; here each key of a constraint is one.
func CheckPreferences(preferences []swarm.PlacementPreference) error {
	for i, p := range preferences {
		if p.Spread == nil {
			return Errorf(ErrInvalid, "Placement.Preferences[%d]: only spread=KEY is known", i)
		}
		if _, _, known := lookUp(p.Spread.SpreadDescriptor, &Node{}); !known {
			return Errorf(ErrInvalid, "Placement.Preferences[%d]: spread=%s means nothing, there are %s", i, p.Spread.SpreadDescriptor, constraintKeys)
		}
	}
	return nil
}

// Attribute is the value of a constraint's key on a node; empty when the node has
// none.
func Attribute(key string, node *Node) string {
	value, _, _ := lookUp(key, node)
	return value
}
