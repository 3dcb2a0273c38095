package cluster

import (
	"fmt"
	"strings"
	"time"
)

// DefaultDependsTimeout is what holds without LabelDependsOnTimeout.
const DefaultDependsTimeout = time.Hour

// LabelStack is by whose value `docker stack` knows the services of a stack; their names
// begin with it.
const LabelStack = "com.docker.stack.namespace"

// Condition is what a service waits for another one to be.
type Condition string

// The conditions. All are about the tasks that the other service wants now: while it is being
// updated, what it ran before doesn't count.
const (
	// ConditionStarted is that all containers run, healthy or not.
	ConditionStarted Condition = "started"
	// ConditionHealthy is that all tasks run, and those with a health check are healthy.
	ConditionHealthy Condition = "healthy"
	// ConditionCompleted is that all tasks have ended with exit code 0.
	ConditionCompleted Condition = "completed"
)

// Dependency is another service, by name, and what it must be.
type Dependency struct {
	Service   string
	Condition Condition
}

func (d Dependency) String() string {
	if d.Condition == ConditionHealthy {
		return d.Service + " to be healthy"
	}
	return fmt.Sprintf("%s to have %s", d.Service, d.Condition)
}

// Dependencies are what a service waits for, by its labels, with whole names: those of the
// same stack are written without what they all begin with.
func Dependencies(labels map[string]string) []Dependency {
	list, _ := LabelDependsOn.Of(labels)
	if stack := labels[LabelStack]; stack != "" {
		for i := range list {
			list[i].Service = stack + "_" + list[i].Service
		}
	}
	return list
}

func readDependencies(text string) ([]Dependency, error) {
	const wanted = wants("services and what they must be, such as db:healthy,migrate:completed,cache:started")
	var list []Dependency
	seen := map[string]bool{}
	for part := range strings.SplitSeq(text, ",") {
		name, condition, _ := strings.Cut(strings.TrimSpace(part), ":")
		switch Condition(condition) {
		case ConditionStarted, ConditionHealthy, ConditionCompleted:
		default:
			return nil, wanted
		}
		if !IsServiceName(name) {
			return nil, wanted
		}
		if seen[strings.ToLower(name)] {
			return nil, wants("each service once, and " + name + " is there twice")
		}
		seen[strings.ToLower(name)] = true
		list = append(list, Dependency{name, Condition(condition)})
	}
	return list, nil
}
