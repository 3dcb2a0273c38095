package manager

import (
	"fmt"

	"skep/cluster/standing"
	"skep/store"
)

// serviceProblems names the services that run fewer tasks than they should for a reason that
// doesn't go away by itself in a moment: tasks that wait, and tasks that failed just before.
func serviceProblems(view store.View) []string {
	var found []string
	for service := range view.Services() {
		if stands := standing.Of(view, service); stands.Reason() != "" {
			found = append(found, fmt.Sprintf("service %s runs %d of %d tasks: %s", service.Spec.Name, stands.Running, stands.Wanted, stands.Reason()))
		}
	}
	return found
}
