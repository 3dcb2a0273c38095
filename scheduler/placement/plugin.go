package placement

import (
	"fmt"
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
	// pluginNetwork is listed by nodes that can carry networks of a driver.
	pluginNetwork = "Network"
)

// builtIn are the log drivers that engines have without a plugin.
var builtIn = []string{"awslogs", "etwlogs", "fluentd", "gcplogs", "gelf", "journald", "json-file", "local", "logentries", "splunk", "syslog"}

// overlays are what networks need; the second one if one of them is encrypted.
var overlays = []plugin{{pluginNetwork, cluster.OverlayDriver}, {pluginNetwork, cluster.EncryptedOverlay}}

// plugins lists what a revision needs.
func plugins(r *cluster.Revision, around Surroundings) []plugin {
	logDriver := around.LogDriver
	var needs []plugin
	switch {
	case slices.ContainsFunc(around.Networks, func(n *cluster.Network) bool { return n.Spans() && n.Encrypted() }):
		needs = overlays[:2:2]
	case slices.ContainsFunc(around.Networks, (*cluster.Network).Spans):
		needs = overlays[:1:1]
	}
	add := func(p plugin) {
		if !slices.Contains(needs, p) {
			needs = append(needs, p)
		}
	}
	for _, n := range around.Networks {
		if !n.Spans() {
			add(plugin{pluginNetwork, n.Driver()})
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

func (p plugin) overlay() bool { return p.kind == pluginNetwork && p.name == cluster.OverlayDriver }

func (p plugin) String() string {
	switch p.kind {
	case pluginLog:
		return "log driver " + p.name
	case pluginNetwork:
		switch p.name {
		case cluster.EncryptedOverlay:
			return "support for encrypted overlay networks"
		case cluster.OverlayDriver:
			return "support for overlay networks"
		}
		return "network driver " + p.name
	}
	return "volume driver " + p.name
}

// lacks names the first plugin that a node doesn't have; empty when it has all.
func (p *eligibleNodes) lacks(node *cluster.Node) string {
	for _, plugin := range p.plugins {
		if !plugin.on(node) {
			return plugin.String()
		}
		if plugin.overlay() && node.Index == 0 {
			return noIndex
		}
	}
	return ""
}

// noIndex is what a node lacks that joined when all indexes were given out.
var noIndex = fmt.Sprintf("index for overlay networks (only %d nodes get one)", cluster.MaxIndex)
