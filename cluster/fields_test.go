package cluster

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var writeFields = flag.Bool("fields", false, "write down this source's fields as those of its level: before a release")

// TestFields_OfReleasesStay holds that what the last release writes and says stays as it
// is, and that what was added since is of a later level and left out while it is zero.
// testdata/fields-N has what the fields of level N are; the last tag says which level was
// released. Until there is one, fields may change freely.
func TestFields_OfReleasesStay(t *testing.T) {
	all := append(messages(), Cluster{}, Node{}, Service{}, Revision{}, Rollout{}, Task{}, Secret{}, Config{}, ManagerHealth{})
	now := map[string]string{}
	for _, v := range all {
		fieldsIn(reflect.TypeOf(v), now)
	}
	if len(now) < 300 || now["cluster.Node.Build"] == "" || now["swarm.ServiceSpec.TaskTemplate"] == "" {
		t.Fatalf("only %d fields were found", len(now))
	}
	if *writeFields {
		var lines []string
		for name, form := range now {
			lines = append(lines, name+" "+form+"\n")
		}
		slices.Sort(lines)
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join("testdata", fmt.Sprint("fields-", Level)), []byte(strings.Join(lines, "")), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	level := releasedLevel(t)
	if level == 0 {
		t.Log("nothing is released yet")
		return
	}
	file, err := os.ReadFile(filepath.Join("testdata", fmt.Sprint("fields-", level)))
	if err != nil {
		t.Fatalf("%v: check out the release, \"go test ./cluster -run TestFields -fields\", and commit the file", err)
	}
	released := map[string]string{}
	for line := range strings.Lines(string(file)) {
		name, form, _ := strings.Cut(strings.TrimSpace(line), " ")
		released[name] = form
	}
	for _, wrong := range differences(released, now, level) {
		t.Error(wrong)
	}
}

// releasedLevel is the level of the last tag before this commit; 0 when there is none.
func releasedLevel(t *testing.T) int {
	tag, err := exec.Command("git", "describe", "--tags", "--abbrev=0").Output()
	if err != nil {
		return 0
	}
	source, err := exec.Command("git", "show", strings.TrimSpace(string(tag))+":./level.go").Output()
	if err != nil {
		t.Fatalf("read the level of %s: %v", tag, err)
	}
	found := regexp.MustCompile(`\tLevel = (\d+)\n`).FindSubmatch(source)
	if found == nil {
		t.Fatalf("%s has no level", tag)
	}
	level, _ := strconv.Atoi(string(found[1]))
	return level
}

// differences says what is wrong with the fields that there are now, as to those of a
// release of some level.
func differences(released, now map[string]string, level int) (wrong []string) {
	for name, form := range released {
		if now[name] != form {
			wrong = append(wrong, fmt.Sprintf("%s was released as %q, and is %q", name, form, now[name]))
		}
	}
	for name, form := range now {
		if released[name] != "" {
			continue
		}
		added, _ := strconv.Atoi(strings.TrimPrefix(regexp.MustCompile(` level:\d+`).FindString(form), " level:"))
		if added <= level {
			wrong = append(wrong, fmt.Sprintf("%s isn't in the release of level %d: give it the tag `level:\"%d\"` (or a place in dockerLevels)", name, level, level+1))
		}
		// What Docker's types always write, versions have in two forms: see Merge.
		if !strings.Contains(form, " omitted") && !strings.HasSuffix(form, " docker") {
			wrong = append(wrong, name+" must be left out while it is zero (omitempty or omitzero): older versions don't write it")
		}
	}
	slices.Sort(wrong)
	return wrong
}

// fieldsIn notes each field of each struct that is in a type, with its key, its type, its
// level, and whether it is left out while it is zero.
func fieldsIn(t reflect.Type, found map[string]string) {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Array || t.Kind() == reflect.Map {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || t.PkgPath() == "time" {
		return
	}
	for i := range t.NumField() {
		field := t.Field(i)
		tag := field.Tag.Get("cbor")
		if tag == "" {
			tag = field.Tag.Get("json")
		}
		name := t.String() + "." + field.Name
		if !field.IsExported() || tag == "-" || found[name] != "" {
			continue
		}
		key, options, _ := strings.Cut(tag, ",")
		if key == "" {
			key = field.Name
		}
		form := key + " " + field.Type.String()
		if strings.Contains(options, "omitempty") || strings.Contains(options, "omitzero") {
			form += " omitted"
		}
		level := field.Tag.Get("level")
		if of := dockerLevels[name]; of > 0 {
			level = fmt.Sprint(of)
		}
		if level != "" {
			form += " level:" + level
		}
		if strings.HasPrefix(t.PkgPath(), "github.com/") {
			form += " docker"
		}
		found[name] = form
		fieldsIn(field.Type, found)
	}
}

func TestDifferences(t *testing.T) {
	released := map[string]string{"a.B": "B string", "a.C": "C int omitted"}
	for want, now := range map[string]map[string]string{
		"":                             {"a.B": "B string", "a.C": "C int omitted", "a.D": "D int omitted level:2"},
		`a.B was released as "B str`:   {"a.B": "B int", "a.C": "C int omitted"},
		`a.C was released as "C int`:   {"a.B": "B string"},
		"a.D isn't in the release of":  {"a.B": "B string", "a.C": "C int omitted", "a.D": "D int omitted"},
		"a.E isn't in the release of":  {"a.B": "B string", "a.C": "C int omitted", "a.E": "E int omitted level:1"},
		"swarm.G isn't in the release": {"a.B": "B string", "a.C": "C int omitted", "swarm.G": "G int docker"},
		"a.F must be left out":         {"a.B": "B string", "a.C": "C int omitted", "a.F": "F int level:2"},
	} {
		wrong := strings.Join(differences(released, now, 1), "\n")
		if (want == "") != (wrong == "") || !strings.HasPrefix(wrong, want) {
			t.Errorf("want %q: %q", want, wrong)
		}
	}
}
