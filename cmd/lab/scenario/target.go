package scenario

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Target says which nodes a step acts on, in the words of the file.
type Target struct {
	Text  string
	picks []pick
}

// pick is one part of a target.
type pick struct {
	kind  string // one of kinds, or "name"
	count int    // 0 means all that there are
	half  bool
	name  string
}

// Nodes is what is known of the cluster when a target chooses.
type Nodes struct {
	Managers, Workers []string // in order
	// Leader is the present leader's name, or empty.
	Leader string
	// Touched are nodes that an earlier step acts on; a target takes others.
	Touched map[string]bool
	// Sessions say with which manager each agent speaks.
	Sessions map[string]string
	// Bound are the nodes that earlier steps named with "as".
	Bound map[string][]string
}

// kinds are the words for nodes; all of them also in the plural.
var kinds = []string{"leader", "follower", "manager", "worker", "node"}

const targetForm = `a node such as "leader", "follower", "worker", "w2", "3 workers", "half the workers", "all managers", "leader and its agents", "everything", a name given with "as", or a list of these`

// parseTarget reads a part of a target. names are those that are bound by then.
func parseTarget(text string, names []string) (pick, error) {
	if slices.Contains(names, text) {
		return pick{kind: "name", name: text}, nil
	}
	switch text {
	case "leader and its agents":
		return pick{kind: "island"}, nil
	case "everything":
		return pick{kind: "node"}, nil
	}
	words := strings.Fields(text)
	singular := func(word string) string { return strings.TrimSuffix(word, "s") }
	switch {
	case len(words) == 1 && slices.Contains(kinds, words[0]):
		return pick{kind: words[0], count: 1}, nil
	case len(words) == 1 && nodeName(words[0]):
		return pick{kind: "name", name: words[0]}, nil
	case len(words) == 2 && slices.Contains(kinds, singular(words[1])):
		if words[0] == "all" {
			return pick{kind: singular(words[1])}, nil
		}
		if n, err := strconv.Atoi(words[0]); err == nil && n > 0 {
			return pick{kind: singular(words[1]), count: n}, nil
		}
	case len(words) == 3 && words[0] == "half" && words[1] == "the" && slices.Contains(kinds, singular(words[2])):
		return pick{kind: singular(words[2]), half: true}, nil
	}
	return pick{}, fmt.Errorf("%q is no target: want %s", text, targetForm)
}

// nodeName tells whether the word is a node's own name: m1, w2, …
func nodeName(word string) bool {
	if len(word) < 2 || word[0] != 'm' && word[0] != 'w' {
		return false
	}
	n, err := strconv.Atoi(word[1:])
	return err == nil && n > 0
}

// Wants is what a target must know of the cluster to choose.
type Wants struct{ Leader, Sessions bool }

// Wants tells which of Nodes' fields the target looks at beyond the names.
func (t Target) Wants() Wants {
	var w Wants
	for _, p := range t.picks {
		w.Leader = w.Leader || p.kind == "leader" || p.kind == "follower" || p.kind == "island"
		w.Sessions = w.Sessions || p.kind == "island"
	}
	return w
}

// Choose returns the nodes that the target means now, in order and each once.
func (t Target) Choose(now Nodes) ([]string, error) {
	var chosen []string
	for _, p := range t.picks {
		names, err := p.choose(now, chosen)
		if err != nil {
			return nil, fmt.Errorf("choose %s: %w", t.Text, err)
		}
		for _, name := range names {
			if !slices.Contains(chosen, name) {
				chosen = append(chosen, name)
			}
		}
	}
	return chosen, nil
}

func (p pick) choose(now Nodes, chosen []string) ([]string, error) {
	if p.kind == "name" {
		if names, ok := now.Bound[p.name]; ok {
			return names, nil
		}
		if !slices.Contains(now.Managers, p.name) && !slices.Contains(now.Workers, p.name) {
			return nil, fmt.Errorf("there is no node %s", p.name)
		}
		return []string{p.name}, nil
	}
	if (p.kind == "leader" || p.kind == "follower" || p.kind == "island") && now.Leader == "" {
		return nil, fmt.Errorf("there is no leader")
	}
	var all []string
	switch p.kind {
	case "leader", "island":
		all = []string{now.Leader}
		for _, w := range now.Workers {
			if p.kind == "island" && now.Sessions[w] == now.Leader {
				all = append(all, w)
			}
		}
		return all, nil
	case "follower":
		all = without(now.Managers, now.Leader)
	case "manager":
		all = now.Managers
	case "worker":
		all = now.Workers
	case "node":
		all = append(slices.Clone(now.Managers), now.Workers...)
	}
	want := p.count
	switch {
	case p.half:
		want = (len(all) + 1) / 2
	case p.count == 0:
		return all, nil
	}
	var free []string
	for _, name := range all {
		if !now.Touched[name] && !slices.Contains(chosen, name) {
			free = append(free, name)
		}
	}
	if len(free) < want {
		return nil, fmt.Errorf("%d wanted, and only %d are untouched", want, len(free))
	}
	return free[:want], nil
}

func without(names []string, name string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == name })
}
