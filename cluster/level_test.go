package cluster

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/swarm"
)

func TestFits(t *testing.T) {
	for _, c := range []struct {
		build Build
		level ClusterLevel
		want  string // in the error; empty for none
	}{
		{Build{Level: 2, MinLevel: 1}, ClusterLevel{Level: 2}, ""},
		{Build{Level: 2, MinLevel: 1}, ClusterLevel{Level: 1}, ""},
		{Build{}, ClusterLevel{}, ""},
		{Build{Level: 3, MinLevel: 2}, ClusterLevel{Level: 2}, ""},
		{Build{Version: "0.1.0", Level: 1, MinLevel: 1}, ClusterLevel{Level: 2, LevelVersion: "0.2.0"},
			"the cluster is at level 2, which skep 0.1.0 (levels 1 to 1) doesn't know: install skep 0.2.0 or a newer one"},
		{Build{}, ClusterLevel{Level: 2}, "install a version that has it"},
		{Build{Version: "0.9.0", Level: 9, MinLevel: 7}, ClusterLevel{Level: 2}, "install a version in between, one that has the levels 2 and 7"},
	} {
		err := c.build.Fits(c.level)
		if (err == nil) != (c.want == "") || err != nil && (!errors.Is(err, ErrVersion) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%+v in %+v: %v, want %q", c.build, c.level, err, c.want)
		}
	}
}

// later is an object some of whose fields are of later levels.
type later struct {
	Old  string
	New  string `level:"2"`
	List []struct {
		Map map[string]*struct {
			Newest int `level:"3"`
		}
	}
	Spec swarm.ServiceSpec
	Self *later
}

func TestCheckLevel(t *testing.T) {
	type inner = struct {
		Newest int `level:"3"`
	}
	dockerLevels["mount.VolumeOptions.Subpath"] = 2
	t.Cleanup(func() { delete(dockerLevels, "mount.VolumeOptions.Subpath") })
	object := &later{Old: "old"}
	check := func(level int, want string) {
		t.Helper()
		if err := CheckLevel(object, level); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("at level %d: %v, want %q", level, err, want)
		}
	}
	check(1, "")
	object.New = "x"
	check(1, "later.New is of level 2, and the cluster is at level 1")
	check(2, "")
	object.List = append(object.List, struct{ Map map[string]*inner }{map[string]*inner{"a": nil, "b": {}}})
	check(2, "")
	object.List[0].Map["b"].Newest = 1
	check(2, "later.List.Map.Newest is of level 3")
	check(3, "")
	object = &later{}
	object.Spec.TaskTemplate.ContainerSpec = &swarm.ContainerSpec{Mounts: []mount.Mount{{}, {VolumeOptions: &mount.VolumeOptions{Subpath: "a"}}}}
	check(1, "later.Spec.TaskTemplate.ContainerSpec.Mounts.VolumeOptions.Subpath is of level 2")
	check(2, "")
}

// What is in the database has no field of a level that this source doesn't have.
func TestLevels_OfObjects(t *testing.T) {
	for _, object := range []any{Cluster{}, Node{}, Service{}, Revision{}, Rollout{}, Task{}, Secret{}, Config{}} {
		if err := checkOwn(object); err != nil {
			t.Error(err)
		}
	}
	if err := checkOwn(later{}); err == nil {
		t.Error("a field of level 3 isn't noticed")
	}
}

func checkOwn(object any) error {
	for _, f := range leveledFields(reflect.TypeOf(object)) {
		if f.level > Level {
			return fmt.Errorf("%s is of level %d, and Level is %d", f.name, f.level, Level)
		}
	}
	return nil
}
