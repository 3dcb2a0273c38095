package placement

import (
	"slices"

	"github.com/docker/docker/api/types/mount"

	"skep/cluster"
)

// plugin is a driver that a task needs on its node's engine.
type plugin struct{ kind, name string }

// The kinds of plugins, as nodes describe them.
const (
	pluginLog    = "Log"
	pluginVolume = "Volume"
)

// builtIn are the log drivers that engines have without a plugin.
var builtIn = []string{"awslogs", "etwlogs", "fluentd", "gcplogs", "gelf", "journald", "json-file", "local", "logentries", "splunk", "syslog"}

// plugins lists what a revision needs; logDriver is that of tasks that have none.
func plugins(r *cluster.Revision, logDriver string) []plugin {
	var needs []plugin
	add := func(p plugin) {
		if !slices.Contains(needs, p) {
			needs = append(needs, p)
		}
	}
	if r.Spec.LogDriver != nil {
		logDriver = r.Spec.LogDriver.Name
	}
	if logDriver != "" && logDriver != "none" {
		add(plugin{pluginLog, logDriver})
	}
	if r.Spec.ContainerSpec == nil {
		return needs
	}
	for _, m := range r.Spec.ContainerSpec.Mounts {
		if m.Type == mount.TypeVolume && m.VolumeOptions != nil && m.VolumeOptions.DriverConfig != nil {
			if name := m.VolumeOptions.DriverConfig.Name; name != "" && name != "local" {
				add(plugin{pluginVolume, name})
			}
		}
	}
	return needs
}

// on tells whether a node has the plugin. One that lists none of the kind, since
// its agent doesn't say, is taken to have what is built in.
func (p plugin) on(node *cluster.Node) bool {
	listed := false
	for _, has := range node.Description.Engine.Plugins {
		if has.Type != p.kind {
			continue
		}
		listed = true
		if has.Name == p.name || has.Name == p.name+":latest" {
			return true
		}
	}
	return !listed && p.kind == pluginLog && slices.Contains(builtIn, p.name)
}

func (p plugin) String() string {
	if p.kind == pluginLog {
		return "log driver " + p.name
	}
	return "volume driver " + p.name
}

// lacks names the first plugin that a node doesn't have; empty when it has all.
func (p *eligibleNodes) lacks(node *cluster.Node) string {
	for _, plugin := range p.plugins {
		if !plugin.on(node) {
			return plugin.String()
		}
	}
	return ""
}
