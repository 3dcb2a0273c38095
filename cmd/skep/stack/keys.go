package stack

import (
	"maps"
	"slices"
	"strings"
)

// keys are those of a mapping that mean something in a cluster, with the same for what is in them;
// nil takes anything. "*" is any key, "[]" any element of a list.
type keys map[string]keys

var (
	fileKeys     = keys{"[]": {"source": nil, "target": nil, "uid": nil, "gid": nil, "mode": nil}}
	resourceKeys = keys{"cpus": nil, "memory": nil, "pids": nil, "generic_resources": nil}
)

// topKeys are those of the file. What `include`, `extends`, profiles and interpolation stand for is
// done when they are applied.
var topKeys = keys{
	"services": {"*": serviceKeys},
	"networks": {"*": {
		"name": nil, "driver": nil, "driver_opts": nil, "external": nil, "internal": nil, "attachable": nil, "labels": nil,
		"ipam": {"driver": nil, "config": {"[]": {"subnet": nil}}},
	}},
	"volumes": {"*": {"name": nil, "driver": nil, "driver_opts": nil, "external": nil, "labels": nil, "x-cluster-spec": nil}},
	"secrets": {"*": {"name": nil, "file": nil, "external": nil, "labels": nil, "driver": nil, "driver_opts": nil, "template_driver": nil}},
	"configs": {"*": {"name": nil, "file": nil, "external": nil, "labels": nil, "template_driver": nil}},
}

// serviceKeys are those that docker's conversion makes something of.
var serviceKeys = keys{
	"cap_add": nil, "cap_drop": nil, "command": nil, "configs": fileKeys, "credential_spec": nil,
	"deploy": {
		"mode": nil, "endpoint_mode": nil, "replicas": nil, "labels": nil, "rollback_config": nil, "update_config": nil,
		"resources":      {"limits": resourceKeys, "reservations": resourceKeys},
		"restart_policy": nil, "placement": nil,
	},
	"dns": nil, "dns_search": nil, "entrypoint": nil, "env_file": nil, "environment": nil, "extra_hosts": nil, "healthcheck": nil,
	"hostname": nil, "image": nil, "init": nil, "isolation": nil, "labels": nil, "logging": nil,
	"networks":  {"*": {"aliases": nil, "driver_opts": nil}},
	"ports":     {"[]": {"mode": nil, "target": nil, "published": nil, "protocol": nil}},
	"read_only": nil, "restart": nil, "secrets": fileKeys, "stdin_open": nil, "stop_grace_period": nil, "stop_signal": nil,
	"sysctls": nil, "tty": nil, "ulimits": nil, "user": nil,
	"volumes": {"[]": {
		"type": nil, "source": nil, "target": nil, "read_only": nil, "consistency": nil, "bind": {"propagation": nil},
		"volume": {"nocopy": nil, "subpath": nil}, "tmpfs": {"size": nil}, "image": {"subpath": nil}, "cluster": nil,
	}},
	"working_dir": nil,
}

// instead says what to write for what docker's specs have no field for.
var instead = map[string]string{
	"build":          "build and push the image before, and name it with image",
	"container_name": "tasks have names of their own; on a network the service's name is found",
	"links":          "services of a network find each other by name",
	"network_mode":   "put the service on a network that is external: true, with name: host or none",
	"tmpfs":          "use volumes with type: tmpfs",
	"expose":         "services of a network reach all ports of each other",
	"host_ip":        "label the service (deploy.labels) skep.publish.host-ip",
	"ipv4_address":   "addresses are given out; label the service (deploy.labels) skep.static-addresses=true to have each slot keep its own",
	"ipv6_address":   "addresses are given out; label the service (deploy.labels) skep.static-addresses=true to have each slot keep its own",
	"gpus":           "label the service (deploy.labels) skep.host.gpus",
	"devices":        "label the service (deploy.labels) skep.host.devices or skep.host.gpus",
	"pull_policy":    "nodes pull images that they don't have, of the digest that was deployed",
}

func init() {
	for _, key := range []string{
		"privileged", "ipc", "pid", "userns_mode", "uts", "cgroup", "cgroup_parent", "runtime", "cpuset", "shm_size", "memswap_limit",
		"mem_swappiness", "oom_kill_disable", "cpu_shares", "cpu_rt_period", "cpu_rt_runtime", "security_opt", "storage_opt", "device_cgroup_rules",
	} {
		label := strings.ReplaceAll(key, "_", "-")
		switch key {
		case "userns_mode":
			label = "userns"
		case "cgroup":
			label = "cgroupns"
		case "cpuset":
			label = "cpuset-cpus"
		case "memswap_limit":
			label = "memory-swap"
		case "mem_swappiness":
			label = "memory-swappiness"
		}
		instead[key] = "label the service (deploy.labels) skep.host." + label
	}
}

// prune takes what isn't among the keys out of a value, and says what that was.
func prune(value any, allowed keys, path string, say func(string)) {
	if allowed == nil {
		return
	}
	switch value := value.(type) {
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(value)) {
			next, ok := allowed[key]
			if !ok {
				next, ok = allowed["*"]
			}
			switch {
			case ok:
				prune(value[key], next, joined(path, key), say)
			case strings.HasPrefix(key, "x-"):
				delete(value, key)
			default:
				delete(value, key)
				if hint := instead[key]; hint != "" {
					say(joined(path, key) + " is ignored: " + hint)
				} else {
					say(joined(path, key) + " is ignored: it has no meaning in a cluster")
				}
			}
		}
	case []any:
		for _, element := range value {
			prune(element, allowed["[]"], path, say)
		}
	}
}

func joined(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}
