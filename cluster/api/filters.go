package api

import (
	"strings"

	"github.com/docker/docker/api/types/filters"

	"skep/cluster"
)

// parseFilters reads the filters of a list in either form, {"k":{"v":true}} or
// {"k":["v"]}. Keys other than the accepted are refused; none accepted means
// that any may come.
func parseFilters(r *request, accepted ...string) (filters.Args, error) {
	args, err := filters.FromJSON(r.query.Get("filters"))
	if err != nil {
		return args, fail(cluster.ErrInvalid, "invalid filter")
	}
	if len(accepted) == 0 {
		return args, nil
	}
	known := map[string]bool{}
	for _, key := range accepted {
		known[key] = true
	}
	for _, key := range args.Keys() {
		if !known[key] {
			return args, fail(cluster.ErrInvalid, "invalid filter '%s'", key)
		}
	}
	return args, nil
}

// anyPrefix tells whether text begins with one of prefixes; no prefixes, no filter.
func anyPrefix(text string, prefixes []string) bool {
	if len(prefixes) == 0 {
		return true
	}
	for _, prefix := range prefixes {
		if strings.HasPrefix(text, prefix) {
			return true
		}
	}
	return false
}

// anyOf tells whether text is one of values; no values, no filter.
func anyOf(text string, values []string) bool {
	if len(values) == 0 {
		return true
	}
	for _, value := range values {
		if strings.EqualFold(text, value) {
			return true
		}
	}
	return false
}

// hasLabels tells whether all wanted labels are there: "k" and "k=" mean present
// with any value, "k=v" with this one.
func hasLabels(labels map[string]string, wanted []string) bool {
	for _, want := range wanted {
		key, value, _ := strings.Cut(want, "=")
		if have, ok := labels[key]; !ok || (value != "" && value != have) {
			return false
		}
	}
	return true
}

// checkValues refuses values of a filter that can't be.
func checkValues(name string, values []string, possible ...string) error {
	for _, value := range values {
		if value == "" || !anyOf(value, possible) {
			return fail(cluster.ErrInvalid, "Invalid %s filter: '%s'", name, value)
		}
	}
	return nil
}
