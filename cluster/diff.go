package cluster

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/go-units"
)

// Difference is one thing that differs between two revisions, in words.
type Difference struct {
	// Field says what, such as "image" or "environment LOG".
	Field string
	// From and To are its values; empty where there is none.
	From, To string `json:",omitempty"`
}

// String is the difference in a line, with a tab before the values.
func (d Difference) String() string {
	switch {
	case d.From == "":
		return "+ " + d.Field + "\t" + d.To
	case d.To == "":
		return "- " + d.Field + "\t" + d.From
	}
	return "~ " + d.Field + "\t" + d.From + " -> " + d.To
}

// DiffRevisions says what differs between two revisions, the image first. It goes by what
// they are in JSON, so no field of Docker's is forgotten.
func DiffRevisions(from, to KeptRevision) []Difference {
	return diffTrees(revisionTree(from), revisionTree(to))
}

// DiffSpecs says the same of two specs of a service: beside what makes a revision, how many
// replicas there are and how it is updated.
func DiffSpecs(from, to *swarm.ServiceSpec) []Difference {
	return diffTrees(specTree(from), specTree(to))
}

func diffTrees(from, to tree) []Difference {
	var found []Difference
	compare(&found, "", from, to)
	slices.SortFunc(found, func(a, b Difference) int {
		return cmp.Or(-cmp.Compare(rank(a.Field), rank(b.Field)), cmp.Compare(a.Field, b.Field))
	})
	return found
}

func rank(field string) int {
	if field == "image" {
		return 1
	}
	return 0
}

// tree is an object by the words for its fields: of texts, of trees, and of items.
type tree map[string]any

// item is an element of a list that has a name of its own. One that comes or goes is one
// difference.
type item tree

func (i item) String() string {
	var parts []string
	for _, word := range slices.Sorted(maps.Keys(i)) {
		switch v := i[word].(type) {
		case string:
			parts = append(parts, word+" "+v)
		case tree:
			parts = append(parts, word+" ("+item(v).String()+")")
		case item:
			parts = append(parts, word+" ("+v.String()+")")
		}
	}
	return cmp.Or(strings.Join(parts, ", "), "yes")
}

func compare(found *[]Difference, field string, from, to tree) {
	words := tree{}
	maps.Copy(words, from)
	maps.Copy(words, to)
	for word := range words {
		name := strings.TrimSpace(field + " " + word)
		a, b := from[word], to[word]
		left, leftIs := a.(item)
		right, rightIs := b.(item)
		x, xIs := a.(tree)
		y, yIs := b.(tree)
		switch {
		case leftIs && rightIs:
			compare(found, name, tree(left), tree(right))
		case xIs || yIs:
			compare(found, name, x, y)
		case asText(a) != asText(b):
			*found = append(*found, Difference{name, asText(a), asText(b)})
		}
	}
}

func asText(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	case item:
		return v.String()
	}
	return ""
}

func revisionTree(r KeptRevision) tree {
	return treeOf(struct {
		swarm.TaskSpec
		Labels map[string]string
	}{r.TaskTemplate, r.Labels}, r.EndpointSpec)
}

func specTree(s *swarm.ServiceSpec) tree {
	all := revisionTree(KeptRevision{TaskTemplate: s.TaskTemplate, EndpointSpec: s.EndpointSpec, Labels: s.Labels})
	for word, value := range treeOf(struct {
		swarm.ServiceMode
		Update, Rollback *swarm.UpdateConfig
	}{s.Mode, s.UpdateConfig, s.RollbackConfig}) {
		all[word] = value
	}
	return all
}

// treeOf is the tree of objects that JSON can say.
func treeOf(parts ...any) tree {
	all := tree{}
	for _, part := range parts {
		text, err := json.Marshal(part)
		if err != nil {
			continue // It came as JSON.
		}
		var object map[string]any
		decoder := json.NewDecoder(bytes.NewReader(text))
		decoder.UseNumber()
		if decoder.Decode(&object) == nil {
			all.add(object, "")
		}
	}
	return all
}

// add adds an object's fields; within says which field the object is of.
func (t tree) add(object map[string]any, within string) {
	for name, v := range object {
		switch v := v.(type) {
		case map[string]any:
			switch {
			case inlined[name]:
				t.add(v, name)
			case named[name]:
				for key, value := range v {
					t[singular(name, within)+" "+printable(key)] = valueOf(name, value)
				}
			case len(v) > 0:
				child := tree{}
				child.add(v, name)
				t[wordsOf(name)] = child
			}
		case []any:
			t.list(name, within, v)
		default:
			if value := valueOf(name, v); value != "" {
				t[wordsOf(name)] = value
			}
		}
	}
}

// list adds a list: each element by its name, if such elements have one.
func (t tree) list(name, within string, list []any) {
	var plain []string
	for i, v := range list {
		switch object, ok := v.(map[string]any); {
		case ok:
			key, of := nameOf(object, i)
			delete(object, of)
			child := item{}
			tree(child).add(object, name)
			field := singular(name, within) + " " + key
			for n := 2; t[field] != nil; n++ {
				field = fmt.Sprintf("%s %s (%d)", singular(name, within), key, n)
			}
			t[field] = child
		case name == "Env":
			text, _ := v.(string)
			key, value, _ := strings.Cut(text, "=")
			t["environment "+printable(key)] = strconv.Quote(value)
		default:
			plain = append(plain, valueOf(name, v))
		}
	}
	if len(plain) > 0 {
		t[wordsOf(name)] = strings.Join(plain, ", ")
	}
}

// inlined are the objects whose fields are shown as those of what has them.
var inlined = map[string]bool{"ContainerSpec": true, "File": true, "NamedResourceSpec": true, "DiscreteResourceSpec": true}

// named are the maps whose keys are users'.
var named = map[string]bool{"Labels": true, "Sysctls": true, "Options": true, "DriverOpts": true}

// nameOf is what tells an element of a list from the others, the i-th if nothing does, and
// which field that is.
func nameOf(object map[string]any, i int) (key, field string) {
	for _, field := range []string{"SecretName", "ConfigName", "Target", "Name"} {
		if name, ok := object[field].(string); ok && name != "" {
			return printable(name), field
		}
	}
	if port, ok := object["TargetPort"]; ok {
		return fmt.Sprintf("%v/%v", port, cmp.Or(valueOf("", object["Protocol"]), "tcp")), "TargetPort"
	}
	for _, field := range []string{"NamedResourceSpec", "DiscreteResourceSpec"} {
		if resource, ok := object[field].(map[string]any); ok {
			return valueOf("", resource["Kind"]), ""
		}
	}
	return strconv.Itoa(i + 1), ""
}

// singular is the word for one element of a list or a map.
func singular(name, within string) string {
	switch {
	case name == "Labels" && within == "ContainerSpec":
		return "container label"
	case name == "DriverOpts":
		return "driver option"
	}
	return strings.TrimSuffix(wordsOf(name), "s")
}

// wordsOf is a field's name in words: "StopGracePeriod" is "stop grace period".
func wordsOf(name string) string {
	switch name {
	case "NanoCPUs":
		return "CPUs"
	case "MemoryBytes":
		return "memory"
	}
	var words []string
	letters := []rune(name)
	start := 0
	for i := 1; i <= len(letters); i++ {
		end := i == len(letters)
		if !end && (!unicode.IsUpper(letters[i]) || unicode.IsUpper(letters[i-1]) && (i+1 == len(letters) || unicode.IsUpper(letters[i+1]))) {
			continue
		}
		word := string(letters[start:i])
		if strings.ToUpper(word) != word || len(word) == 1 {
			word = strings.ToLower(word)
		}
		words = append(words, word)
		start = i
	}
	return strings.Join(words, " ")
}

// durations are the fields that have one, in nanoseconds.
var durations = map[string]bool{
	"StopGracePeriod": true, "Delay": true, "Monitor": true, "Window": true, "Interval": true, "Timeout": true, "StartPeriod": true, "StartInterval": true,
}

// valueOf is a value in a line, with its unit; empty for none.
func valueOf(field string, v any) string {
	switch v := v.(type) {
	case string:
		return printable(v)
	case bool:
		return map[bool]string{true: "yes", false: "no"}[v]
	case json.Number:
		n, err := v.Int64()
		switch {
		case err != nil:
		case field == "NanoCPUs":
			return strconv.FormatFloat(float64(n)/1e9, 'f', -1, 64)
		case strings.HasSuffix(field, "Bytes"):
			return units.BytesSize(float64(n))
		case durations[field]:
			return time.Duration(n).String()
		case field == "Mode":
			return fmt.Sprintf("%04o", n)
		}
		return v.String()
	}
	return ""
}

// printable is a text as it can be shown in a line.
func printable(s string) string {
	if strings.ContainsFunc(s, func(c rune) bool { return !unicode.IsPrint(c) }) {
		return strconv.Quote(s)
	}
	return s
}
