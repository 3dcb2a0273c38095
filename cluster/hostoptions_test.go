package cluster

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/swarm"
	"github.com/google/go-cmp/cmp"
)

// samples has a value that each option takes.
var samples = map[string]string{
	"privileged":          "true",
	"devices":             "/dev/fuse, /dev/null:/dev/zero:rw,/dev/sda:r",
	"device-cgroup-rules": "c 42:* rmw,b 8:0 r",
	"gpus":                "all",
	"device-requests":     `[{"Driver":"d","Count":1,"DeviceIDs":["0"],"Capabilities":[["gpu","compute"]],"Options":{"a":"b"}}]`,
	"ipc":                 "host",
	"pid":                 "host",
	"userns":              "host",
	"uts":                 "host",
	"cgroupns":            "host",
	"cgroup-parent":       "/skep",
	"runtime":             "runc",
	"cpuset-cpus":         "0-2,4",
	"cpuset-mems":         "0",
	"shm-size":            "64m",
	"memory-reservation":  "16m",
	"memory-swap":         "-1",
	"memory-swappiness":   "0",
	"oom-kill-disable":    "true",
	"cpu-shares":          "512",
	"cpu-rt-period":       "1000",
	"cpu-rt-runtime":      "500",
	"blkio-weight":        "300",
	"blkio-weight-device": "/dev/sda:200",
	"device-read-bps":     "/dev/sda:1m",
	"device-write-bps":    "/dev/sda:1m,/dev/sdb:2",
	"device-read-iops":    "/dev/sda:100",
	"device-write-iops":   "/dev/sda:100",
	"security-opt":        "apparmor=unconfined,label=disable",
	"storage-opt":         "size=10G",
}

// otherwise says how fields of the engine's settings that no option sets come about.
var otherwise = map[string]string{
	"Binds": "mounts", "Mounts": "mounts", "Tmpfs": "mounts of type tmpfs", "VolumeDriver": "volume-driver of a mount",
	"LogConfig": "log driver", "NetworkMode": "networks", "PortBindings": "ports", "CapAdd": "capabilities", "CapDrop": "capabilities",
	"DNS": "DNS config", "DNSOptions": "DNS config", "DNSSearch": "DNS config", "ExtraHosts": "hosts", "GroupAdd": "groups",
	"OomScoreAdj": "oom score", "ReadonlyRootfs": "read-only", "Sysctls": "sysctls", "Isolation": "Windows only", "Init": "init",
	"Memory": "limits", "NanoCPUs": "limits", "PidsLimit": "limits", "Ulimits": "ulimits",
	"CPUPeriod": "limit-cpu says it", "CPUQuota": "limit-cpu says it",
	"RestartPolicy": "the cluster restarts", "AutoRemove": "the cluster removes",
	"ContainerIDFile": "the client writes it", "ConsoleSize": "nobody is at the console",
	"VolumesFrom": "other containers have no lasting name", "Links": "other containers have no lasting name", "Cgroup": "other containers have no lasting name",
	"PublishAllPorts": "ports are part of the spec", "Annotations": "labels of the container say it",
	"MaskedPaths": "privileged or systempaths", "ReadonlyPaths": "privileged or systempaths",
	"KernelMemory": "no kernel has it any more", "KernelMemoryTCP": "no kernel has it any more",
	"CPUCount": "Windows only", "CPUPercent": "Windows only", "IOMaximumIOps": "Windows only", "IOMaximumBandwidth": "Windows only",
}

// TestHostOptions_LeaveNothingOut fails when the engine can do something that
// neither an option nor the spec says.
func TestHostOptions_LeaveNothingOut(t *testing.T) {
	set := map[string]bool{}
	for name, value := range samples {
		h := &container.HostConfig{}
		if err := ApplyHostOptions(map[string]string{LabelHost + name: value, "other": "label"}, h); err != nil {
			t.Error(err)
		}
		changed := changedFields(reflect.ValueOf(*h))
		if len(changed) != 1 {
			t.Errorf("%s=%s changes %v", name, value, changed)
		}
		for _, field := range changed {
			set[field] = true
		}
	}
	for name := range hostOptions {
		if _, ok := samples[name]; !ok {
			t.Errorf("option %s has no sample", name)
		}
	}
	for _, field := range fields(reflect.TypeFor[container.HostConfig]()) {
		if !set[field] && otherwise[field] == "" {
			t.Errorf("nothing sets HostConfig.%s: add an option, or say here why there is none", field)
		}
		if set[field] && otherwise[field] != "" {
			t.Errorf("HostConfig.%s is set by an option: it needs no reason why not", field)
		}
	}
	for field := range otherwise {
		if !slices.Contains(fields(reflect.TypeFor[container.HostConfig]()), field) {
			t.Errorf("HostConfig has no %s", field)
		}
	}
}

// fields are the names of a struct's fields, with those of embedded structs.
func fields(t reflect.Type) (names []string) {
	for _, f := range reflect.VisibleFields(t) {
		if !f.Anonymous {
			names = append(names, f.Name)
		}
	}
	return names
}

func changedFields(v reflect.Value) (names []string) {
	for _, f := range reflect.VisibleFields(v.Type()) {
		if !f.Anonymous && !v.FieldByIndex(f.Index).IsZero() {
			names = append(names, f.Name)
		}
	}
	return names
}

func TestHostOptions_AreTranslated(t *testing.T) {
	h := &container.HostConfig{Resources: container.Resources{Memory: 32 << 20}}
	err := ApplyHostOptions(map[string]string{
		LabelHost + "devices": samples["devices"], LabelHost + "gpus": "2", LabelHost + "memory-swap": "64m", LabelHost + "device-write-bps": "/dev/sda:1m,/dev/sdb:2",
	}, h)
	if err != nil {
		t.Fatal(err)
	}
	want := []container.DeviceMapping{
		{PathOnHost: "/dev/fuse", PathInContainer: "/dev/fuse", CgroupPermissions: "rwm"},
		{PathOnHost: "/dev/null", PathInContainer: "/dev/zero", CgroupPermissions: "rw"},
		{PathOnHost: "/dev/sda", PathInContainer: "/dev/sda", CgroupPermissions: "r"},
	}
	if diff := cmp.Diff(want, h.Devices); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]container.DeviceRequest{{Count: 2, Capabilities: [][]string{{"gpu"}}}}, h.DeviceRequests); diff != "" {
		t.Error(diff)
	}
	if h.MemorySwap != 64<<20 || len(h.BlkioDeviceWriteBps) != 2 || h.BlkioDeviceWriteBps[0].Rate != 1<<20 || h.BlkioDeviceWriteBps[1].Path != "/dev/sdb" {
		t.Errorf("%+v", h.Resources)
	}
}

func TestHostOptions_RefuseWhatMakesNoSense(t *testing.T) {
	for name, values := range map[string][]string{
		"privileged":          {"", "yes"},
		"devices":             {"", "fuse", "/dev/a:b", "/dev/a:/dev/b:x", "/dev/a:/dev/b:r:w", "/dev/a,"},
		"device-cgroup-rules": {"c 42 r", "c 1:1 x"},
		"gpus":                {"0", "-1", "some"},
		"device-requests":     {"", "{}", "[]", `[{"Card":1}]`, `[{}] []`, `[{}]]`},
		"ipc":                 {"container:x", ""},
		"pid":                 {"container:x"},
		"cpuset-cpus":         {"a", "1-", ""},
		"shm-size":            {"0", "-1", "big"},
		"memory-swap":         {"0", "-2", "64m"}, // there is no limit
		"memory-swappiness":   {"101", "-1", "x"},
		"blkio-weight":        {"9", "1001"},
		"blkio-weight-device": {"/dev/sda", "sda:1"},
		"device-read-bps":     {"/dev/sda", "sda:1", "/dev/sda:0"},
		"security-opt":        {"", "=x"},
		"storage-opt":         {"size"},
		"prvileged":           {"true"},
		"":                    {"true"},
	} {
		for _, value := range values {
			err := ApplyHostOptions(map[string]string{LabelHost + name: value}, &container.HostConfig{})
			if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "label "+LabelHost+name) {
				t.Errorf("%s=%q: %v", name, value, err)
			}
		}
	}
}

// Host options are part of what runs, other labels aren't.
func TestUpdateService_HostOptionsMakeARevision(t *testing.T) {
	spec := func(labels map[string]string) swarm.ServiceSpec {
		one := uint64(1)
		return swarm.ServiceSpec{
			Annotations: swarm.Annotations{Name: "web", Labels: labels}, Mode: swarm.ServiceMode{Replicated: &swarm.ReplicatedService{Replicas: &one}},
			TaskTemplate: swarm.TaskSpec{ContainerSpec: &swarm.ContainerSpec{Image: "a"}},
		}
	}
	made := CreateService("s", spec(map[string]string{"a": "1"}), "")
	labelled := UpdateService(made.Service, made.Revision, nil, spec(map[string]string{"a": "2"}), "")
	if labelled.Service.Revision != 1 {
		t.Error("a label made a revision")
	}
	option := UpdateService(labelled.Service, labelled.Revision, nil, spec(map[string]string{"a": "2", LabelHost + "pid": "host"}), "")
	if option.Service.Revision != 2 || option.Revision.ServiceLabels[LabelHost+"pid"] != "host" {
		t.Errorf("a host option made no revision: %+v", option.Service)
	}
	if UpToDate(labelled.Revision, option.Revision, nil) {
		t.Error("a task without the option is taken for one with it")
	}
}
