package cluster

import (
	"encoding/json"
	"io"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/docker/api/types/blkiodev"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/swarm"
	units "github.com/docker/go-units"
)

// hostOptions are the options by the rest of their label. Each reads a label's
// value into the engine's settings, or says what would be a value.
var hostOptions = map[string]func(h *container.HostConfig, value string) error{
	"privileged": boolean(func(h *container.HostConfig, on bool) { h.Privileged = on }),

	"devices": list(func(h *container.HostConfig, item string) error {
		device, ok := parseDevice(item)
		if !ok {
			return wants("devices such as /dev/fuse or /dev/sda:/dev/xvda:rwm, with commas between them")
		}
		h.Devices = append(h.Devices, device)
		return nil
	}),
	"device-cgroup-rules": list(func(h *container.HostConfig, item string) error {
		if !deviceRule.MatchString(item) {
			return wants("rules such as c 42:* rmw, with commas between them")
		}
		h.DeviceCgroupRules = append(h.DeviceCgroupRules, item)
		return nil
	}),
	"gpus": func(h *container.HostConfig, value string) error {
		count, err := strconv.Atoi(value)
		switch {
		case value == "all":
			count = -1
		case err != nil || count < 1:
			return wants("all or a number")
		}
		h.DeviceRequests = append(h.DeviceRequests, container.DeviceRequest{Count: count, Capabilities: [][]string{{"gpu"}}})
		return nil
	},
	"device-requests": func(h *container.HostConfig, value string) error {
		var requests []container.DeviceRequest
		decoder := json.NewDecoder(strings.NewReader(value))
		decoder.DisallowUnknownFields()
		err := decoder.Decode(&requests)
		if _, end := decoder.Token(); err != nil || end != io.EOF || len(requests) == 0 {
			return wants(`the engine's JSON for device requests, such as [{"DeviceIDs":["0"],"Capabilities":[["gpu"]]}]`)
		}
		h.DeviceRequests = append(h.DeviceRequests, requests...)
		return nil
	},

	"ipc":      word(func(h *container.HostConfig, value string) { h.IpcMode = container.IpcMode(value) }, "none", "private", "shareable", "host"),
	"pid":      word(func(h *container.HostConfig, value string) { h.PidMode = container.PidMode(value) }, "host"),
	"userns":   word(func(h *container.HostConfig, value string) { h.UsernsMode = container.UsernsMode(value) }, "host"),
	"uts":      word(func(h *container.HostConfig, value string) { h.UTSMode = container.UTSMode(value) }, "host"),
	"cgroupns": word(func(h *container.HostConfig, value string) { h.CgroupnsMode = container.CgroupnsMode(value) }, "private", "host"),

	"cgroup-parent": text(anyText, "the name of a cgroup", func(h *container.HostConfig, value string) { h.CgroupParent = value }),
	"runtime":       text(anyText, "the name of a runtime of the engine", func(h *container.HostConfig, value string) { h.Runtime = value }),
	"cpuset-cpus":   text(cpuSet, "CPUs such as 0-2,4", func(h *container.HostConfig, value string) { h.CpusetCpus = value }),
	"cpuset-mems":   text(cpuSet, "memory nodes such as 0-1", func(h *container.HostConfig, value string) { h.CpusetMems = value }),

	"shm-size":           size(func(h *container.HostConfig, bytes int64) { h.ShmSize = bytes }),
	"memory-reservation": size(func(h *container.HostConfig, bytes int64) { h.MemoryReservation = bytes }),
	"memory-swap": func(h *container.HostConfig, value string) error {
		if value == "-1" {
			h.MemorySwap = -1
			return nil
		}
		return size(func(h *container.HostConfig, bytes int64) { h.MemorySwap = bytes })(h, value)
	},
	"memory-swappiness": number(0, 100, func(h *container.HostConfig, n int64) { h.MemorySwappiness = &n }),
	"oom-kill-disable":  boolean(func(h *container.HostConfig, on bool) { h.OomKillDisable = &on }),
	"cpu-shares":        number(2, 262144, func(h *container.HostConfig, n int64) { h.CPUShares = n }),
	"cpu-rt-period":     number(1, 1e6, func(h *container.HostConfig, n int64) { h.CPURealtimePeriod = n }),
	"cpu-rt-runtime":    number(1, 1e6, func(h *container.HostConfig, n int64) { h.CPURealtimeRuntime = n }),

	"blkio-weight": number(10, 1000, func(h *container.HostConfig, n int64) { h.BlkioWeight = uint16(n) }),
	"blkio-weight-device": list(func(h *container.HostConfig, item string) error {
		device, value, _ := strings.Cut(item, ":")
		weight, err := strconv.ParseUint(value, 10, 16)
		if err != nil || !path.IsAbs(device) {
			return wants("devices with weights such as /dev/sda:500, with commas between them")
		}
		h.BlkioWeightDevice = append(h.BlkioWeightDevice, &blkiodev.WeightDevice{Path: device, Weight: uint16(weight)})
		return nil
	}),
	"device-read-bps":   throttle(func(r *container.Resources) *[]*blkiodev.ThrottleDevice { return &r.BlkioDeviceReadBps }),
	"device-write-bps":  throttle(func(r *container.Resources) *[]*blkiodev.ThrottleDevice { return &r.BlkioDeviceWriteBps }),
	"device-read-iops":  throttle(func(r *container.Resources) *[]*blkiodev.ThrottleDevice { return &r.BlkioDeviceReadIOps }),
	"device-write-iops": throttle(func(r *container.Resources) *[]*blkiodev.ThrottleDevice { return &r.BlkioDeviceWriteIOps }),

	"security-opt": list(func(h *container.HostConfig, item string) error {
		if key, _, _ := strings.Cut(item, "="); key == "" {
			return wants("options such as apparmor=unconfined, with commas between them")
		}
		h.SecurityOpt = append(h.SecurityOpt, item)
		return nil
	}),
	"storage-opt": list(func(h *container.HostConfig, item string) error {
		key, value, ok := strings.Cut(item, "=")
		if !ok || key == "" {
			return wants("options such as size=10G, with commas between them")
		}
		if h.StorageOpt == nil {
			h.StorageOpt = map[string]string{}
		}
		h.StorageOpt[key] = value
		return nil
	}),
}

var (
	anyText    = regexp.MustCompile(`^\S+$`)
	cpuSet     = regexp.MustCompile(`^\d+(-\d+)?(,\d+(-\d+)?)*$`)
	deviceRule = regexp.MustCompile(`^[acb] (\d+|\*):(\d+|\*) [rwm]{1,3}$`)
	deviceMode = regexp.MustCompile(`^[rwm]{1,3}$`)
)

func boolean(set func(*container.HostConfig, bool)) func(*container.HostConfig, string) error {
	return func(h *container.HostConfig, value string) error {
		on, err := readBool(value)
		if err == nil {
			set(h, on)
		}
		return err
	}
}

func word(set func(*container.HostConfig, string), words ...string) func(*container.HostConfig, string) error {
	return func(h *container.HostConfig, value string) error {
		if !slices.Contains(words, value) {
			return wants(strings.Join(words, ", "))
		}
		set(h, value)
		return nil
	}
}

func text(form *regexp.Regexp, what string, set func(*container.HostConfig, string)) func(*container.HostConfig, string) error {
	return func(h *container.HostConfig, value string) error {
		if !form.MatchString(value) {
			return wants(what)
		}
		set(h, value)
		return nil
	}
}

func size(set func(*container.HostConfig, int64)) func(*container.HostConfig, string) error {
	return func(h *container.HostConfig, value string) error {
		bytes, err := units.RAMInBytes(value)
		if err != nil || bytes <= 0 {
			return wants("a size such as 64m")
		}
		set(h, bytes)
		return nil
	}
}

func number(least, most int64, set func(*container.HostConfig, int64)) func(*container.HostConfig, string) error {
	return func(h *container.HostConfig, value string) error {
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil || n < least || n > most {
			return wants("a number from " + strconv.FormatInt(least, 10) + " to " + strconv.FormatInt(most, 10))
		}
		set(h, n)
		return nil
	}
}

func list(add func(*container.HostConfig, string) error) func(*container.HostConfig, string) error {
	return func(h *container.HostConfig, value string) error {
		for _, item := range strings.Split(value, ",") {
			if err := add(h, strings.TrimSpace(item)); err != nil {
				return err
			}
		}
		return nil
	}
}

func throttle(of func(*container.Resources) *[]*blkiodev.ThrottleDevice) func(*container.HostConfig, string) error {
	return list(func(h *container.HostConfig, item string) error {
		device, value, _ := strings.Cut(item, ":")
		rate, err := units.RAMInBytes(value)
		if err != nil || rate <= 0 || !path.IsAbs(device) {
			return wants("devices with rates such as /dev/sda:1m, with commas between them")
		}
		devices := of(&h.Resources)
		*devices = append(*devices, &blkiodev.ThrottleDevice{Path: device, Rate: uint64(rate)})
		return nil
	})
}

// parseDevice reads host path, path in the container and permissions, as docker
// run --device takes them.
func parseDevice(item string) (container.DeviceMapping, bool) {
	parts := strings.Split(item, ":")
	device := container.DeviceMapping{PathOnHost: parts[0], PathInContainer: parts[0], CgroupPermissions: "rwm"}
	switch {
	case len(parts) == 1:
	case len(parts) == 2 && deviceMode.MatchString(parts[1]):
		device.CgroupPermissions = parts[1]
	case len(parts) == 2:
		device.PathInContainer = parts[1]
	case len(parts) == 3 && deviceMode.MatchString(parts[2]):
		device.PathInContainer, device.CgroupPermissions = parts[1], parts[2]
	default:
		return device, false
	}
	return device, path.IsAbs(device.PathOnHost) && path.IsAbs(device.PathInContainer)
}

// HasHostOptions tells whether any label begins with LabelHost.
func HasHostOptions(labels map[string]string) bool {
	for label := range labels {
		if strings.HasPrefix(label, LabelHost) {
			return true
		}
	}
	return false
}

// AllowsHostOptions tells whether a cluster lets services have host options.
func AllowsHostOptions(spec swarm.Spec) bool {
	allowed, _ := LabelAllowHostOptions.Of(spec.Labels)
	return allowed
}

// ApplyHostOptions adds what the labels of a service that begin with LabelHost ask
// for to the settings of its containers, whose memory limit must have been set. A
// label that isn't known, or a value that makes no sense, is ErrInvalid. It doesn't
// ask whether the cluster allows any of them.
func ApplyHostOptions(labels map[string]string, h *container.HostConfig) error {
	for _, label := range slices.Sorted(maps.Keys(labels)) {
		name, ok := strings.CutPrefix(label, LabelHost)
		if !ok {
			continue
		}
		set := hostOptions[name]
		if set == nil {
			return Errorf(ErrInvalid, "label %s: there is no such host option; there are %s", label, strings.Join(slices.Sorted(maps.Keys(hostOptions)), ", "))
		}
		if err := set(h, labels[label]); err != nil {
			return Errorf(ErrInvalid, "label %s: %q won't do, it takes %v", label, labels[label], err)
		}
	}
	if h.MemorySwap > 0 && (h.Memory == 0 || h.MemorySwap < h.Memory) {
		return Errorf(ErrInvalid, "label %smemory-swap: memory and swap together can't be below the memory limit, and there must be one: set --limit-memory", LabelHost)
	}
	return nil
}

// sameHostOptions tells whether two sets of labels ask for the same host options
// and the same fence, which containers and agents have to know of from the start:
// they are part of what a task runs, unlike other labels.
func sameHostOptions(a, b map[string]string) bool {
	only := func(labels map[string]string) map[string]string {
		options := map[string]string{}
		for label, value := range labels {
			if strings.HasPrefix(label, LabelHost) {
				options[label] = value
			}
		}
		return options
	}
	return maps.Equal(only(a), only(b)) && Fenced(a) == Fenced(b)
}
