package cluster

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"
)

// A level is a number for what may be written to the database and said between nodes.
// The cluster is at one level (Cluster.Level): that of its oldest node. A version of
// skep that adds a field, a kind of object or a meaning has the next one, and writes
// none of it before the cluster is there.
const (
	// Level is the newest that this version can write.
	Level = 1
	// MinLevel is the oldest that a cluster may be at for this version to be part of it.
	MinLevel = 1
)

// Build is which skep a node runs. Nodes say it wherever they introduce themselves.
type Build struct {
	// Version is for people: "0.2.0".
	Version string `cbor:",omitempty" json:",omitempty"`
	// Level and MinLevel are as the constants of its source. 0 stands for 1: builds that
	// didn't tell.
	Level    int `cbor:",omitempty" json:",omitempty"`
	MinLevel int `cbor:",omitempty" json:",omitempty"`
}

// NewBuild is this source's build of a version.
func NewBuild(version string) Build { return Build{Version: version, Level: Level, MinLevel: MinLevel} }

// Bounded is the build as it may be kept: who says it may be anybody.
func (b Build) Bounded() Build {
	b.Version = strings.Map(func(c rune) rune {
		if !unicode.IsGraphic(c) || c == utf8.RuneError {
			return -1 // A terminal would obey it, and versions are shown.
		}
		return c
	}, b.Version[:min(len(b.Version), 64)])
	return b
}

// Can tells whether the build can write what belongs to the level.
func (b Build) Can(level int) bool { return max(b.Level, 1) >= level }

// Name is for sentences about what to install.
func (b Build) Name() string {
	version := b.Version
	if version == "" {
		version = "of an unknown version"
	}
	return fmt.Sprintf("skep %s (levels %d to %d)", version, max(b.MinLevel, 1), max(b.Level, 1))
}

// ClusterLevel is the level that a cluster is at.
type ClusterLevel struct {
	Level int `cbor:",omitempty" json:",omitempty"`
	// LevelVersion is the version of the leader that raised it.
	LevelVersion string `cbor:",omitempty" json:",omitempty"`
}

// At is the level; 0 stands for 1.
func (l ClusterLevel) At() int { return max(l.Level, 1) }

// Fits returns nil when the build can be part of a cluster at the level, and otherwise
// an error that wraps ErrVersion and says what to install.
func (b Build) Fits(l ClusterLevel) error {
	switch {
	case !b.Can(l.At()):
		raised := "a version that has it"
		if l.LevelVersion != "" {
			raised = "skep " + l.LevelVersion
		}
		return Errorf(ErrVersion, "the cluster is at level %d, which %s doesn't know: install %s or a newer one", l.At(), b.Name(), raised)
	case max(b.MinLevel, 1) > l.At():
		return Errorf(ErrVersion, "the cluster is at level %d, which is too old for %s: on all nodes install a version in between, one that has the levels %d and %d",
			l.At(), b.Name(), l.At(), b.MinLevel)
	}
	return nil
}

// KeptRoom is how much room a manager's disk needs to keep a copy of the database, of so many bytes, before the level
// rises: for the copy, and beside it for the log.
func KeptRoom(size uint64) uint64 { return size + size/1024 + 64<<20 }

// CheckLevel refuses an object that has something in a field of a later level than the
// cluster's. Such fields have a tag: `level:"2"`; those of Docker's types are in
// dockerLevels.
func CheckLevel(object any, level int) error {
	v := reflect.ValueOf(object)
	for v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	for _, f := range leveledFields(v.Type()) {
		if f.level > level && f.set(v, 0) {
			return Errorf(ErrVersion, "%s is of level %d, and the cluster is at level %d: upgrade all nodes first (\"skep upgrade status\" says which)", f.name, f.level, level)
		}
	}
	return nil
}

// dockerLevels are the levels of fields of Docker's types that came with a later level
// than their object: by type and field.
var dockerLevels = map[string]int{}

// leveled is a field of a level above 1: the way to it, through any pointers, lists and
// maps.
type leveled struct {
	name  string
	level int
	way   []int // numbers of fields
}

// fieldsOf has each type's leveled fields, which are looked for once.
var fieldsOf sync.Map // of reflect.Type to []leveled

func leveledFields(t reflect.Type) []leveled {
	if known, ok := fieldsOf.Load(t); ok {
		return known.([]leveled)
	}
	found := findLeveled(t, t.Name(), nil, nil)
	fieldsOf.Store(t, found)
	return found
}

// findLeveled walks through a type; within are the types that it is in, since some have
// themselves in them.
func findLeveled(t reflect.Type, name string, way []int, within []reflect.Type) []leveled {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Array || t.Kind() == reflect.Map {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return nil
	}
	for _, outer := range within {
		if outer == t {
			return nil
		}
	}
	within = append(within[:len(within):len(within)], t)
	var found []leveled
	for i := range t.NumField() {
		field := t.Field(i)
		if !field.IsExported() {
			continue
		}
		to := append(way[:len(way):len(way)], i)
		level, _ := strconv.Atoi(field.Tag.Get("level"))
		if level == 0 {
			level = dockerLevels[t.String()+"."+field.Name]
		}
		if level > 1 {
			found = append(found, leveled{name + "." + field.Name, level, to})
			continue
		}
		found = append(found, findLeveled(field.Type, name+"."+field.Name, to, within)...)
	}
	return found
}

// set tells whether there is anything in the field, in any element on the way.
func (f leveled) set(v reflect.Value, depth int) bool {
	switch v.Kind() {
	case reflect.Pointer:
		return !v.IsNil() && f.set(v.Elem(), depth)
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			if f.set(v.Index(i), depth) {
				return true
			}
		}
		return false
	case reflect.Map:
		for _, key := range v.MapKeys() {
			if f.set(v.MapIndex(key), depth) {
				return true
			}
		}
		return false
	}
	v = v.Field(f.way[depth])
	if depth == len(f.way)-1 {
		return !v.IsZero()
	}
	return f.set(v, depth+1)
}
