package dispatch

import (
	"fmt"
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/store"
)

// An agent's reports are validated here, once, before anything else reads them: a worker
// may be compromised, and its reports are stored on every manager.
const (
	maxIDLength    = 64
	maxTextLength  = 4 << 10
	maxDescription = 256 << 10
	maxName        = 128
	maxWarning     = 512
	// maxPortsLength has room for some 300 ports: what is said of a task that this replica
	// doesn't know yet. A task that it knows may have as many ports as its service
	// publishes, each for two kinds of addresses, of portLength.
	maxPortsLength = 8 << 10
	portLength     = len("65535:65535/sctp,")
	// maxUnknown is how many reports may wait, of one node, beyond the tasks that this
	// replica has for it: an agent that comes from a manager that is ahead knows more.
	maxUnknown = 4096
)

// report puts the agent's reports into the outbox. Those of tasks that this replica
// knows to be another node's are dropped: a task never changes its node. About the
// others the leader decides, since this replica may be behind.
func (s *session) report(reports []cluster.Report) error {
	view := s.d.config.Store.View()
	if s.d.outbox.pendingOf(s.nodeID)+len(reports) > maxUnknown {
		own := 0
		for range view.TasksOfNode(s.nodeID) {
			own++
		}
		if s.d.outbox.pendingOf(s.nodeID)+len(reports) > maxUnknown+2*own {
			return errTooMuch
		}
	}
	news := make([]cluster.Report, 0, len(reports))
	for _, r := range reports {
		task := view.Task(r.TaskID)
		r, err := checkReport(r, portsLength(view, task))
		if err == nil && task != nil && task.NodeID != "" && task.NodeID != s.nodeID {
			err = fmt.Errorf("take report of task %s: it is another node's: %w", r.TaskID, cluster.ErrDenied)
		}
		if err != nil {
			s.logRefusal(err)
			continue
		}
		r.Traceparent = s.checkTrace(r.Traceparent, task)
		news = append(news, r)
	}
	if !s.d.outbox.addReports(s.nodeID, news) {
		return errTooMuch
	}
	return nil
}

// logRefusal logs what was refused, now and then: rate-limited per node, since an agent can
// send such reports without end, also in sessions that begin anew.
func (s *session) logRefusal(err error) {
	if unsaid, due := s.d.refusals.Due(s.d.config.Now(), s.nodeID); due {
		s.d.config.Log.Warn("report refused", "node", s.nodeID, "err", err, "unsaid", unsaid)
	}
}

// portsLength is how long the ports of a task may be; nil is one that isn't known.
func portsLength(view store.View, task *cluster.Task) int {
	if task == nil {
		return maxPortsLength
	}
	revision := view.Revision(task.ServiceID, task.Revision)
	if revision == nil {
		return maxPortsLength
	}
	return max(maxPortsLength, 2*portLength*len(cluster.HostPorts(revision.Endpoint)))
}

// checkReport refuses what isn't an agent's to say, and cuts texts that are too long.
func checkReport(r cluster.Report, portsLength int) (cluster.Report, error) {
	if r.TaskID == "" || len(r.TaskID) > maxIDLength || len(r.Status.ContainerID) > 2*maxIDLength {
		return r, fmt.Errorf("take report: IDs of %d and %d characters: %w", len(r.TaskID), len(r.Status.ContainerID), cluster.ErrInvalid)
	}
	if !agents(r.Status.State) {
		return r, fmt.Errorf("take report of task %s: state %s isn't the agent's to report: %w", r.TaskID, r.Status.State, cluster.ErrInvalid)
	}
	if len(r.Status.Ports) > portsLength || cluster.FormatPorts(cluster.ParsePorts(r.Status.Ports)) != r.Status.Ports {
		return r, fmt.Errorf("take report of task %s: %d bytes that aren't ports: %w", r.TaskID, len(r.Status.Ports), cluster.ErrInvalid)
	}
	if strings.ContainsFunc(r.TaskID+r.Status.ContainerID, unprintable) {
		return r, fmt.Errorf("take report: IDs %q and %q: %w", r.TaskID, r.Status.ContainerID, cluster.ErrInvalid)
	}
	r.Status.Message = shorten(r.Status.Message)
	r.Status.Err = shorten(r.Status.Err)
	return r, nil
}

// checkAddr gives the address that an agent may say its node has: none with a zone,
// which means something on that machine only, and may be any text.
func checkAddr(text string) (string, bool) {
	addr, err := netip.ParseAddr(text)
	if err != nil || addr.Zone() != "" {
		return "", false
	}
	return addr.String(), true
}

// checkDataAddr gives the address for packets of networks that an agent may say its node has; ""
// is none of its own.
func checkDataAddr(text string) string {
	addr, ok := checkAddr(text)
	if parsed, _ := netip.ParseAddr(addr); !ok || !parsed.IsGlobalUnicast() && !parsed.IsLoopback() {
		return ""
	}
	return addr
}

// believeLoopback tells whether an agent that called from an address may have one of loopback:
// then it is on this manager's machine. Nodes with such addresses share an engine when they say
// that they do, and who shares it answers for the others' tasks, so nobody from elsewhere
// may be taken for one of them.
func believeLoopback(from string) bool {
	addr, err := netip.ParseAddr(from)
	return err != nil || addr.Unmap().IsLoopback() // It has no address where managers and agents are in one process.
}

// isLoopback tells whether a text is an address of loopback.
func isLoopback(text string) bool {
	addr, err := netip.ParseAddr(text)
	return err == nil && addr.Unmap().IsLoopback()
}

// checkDescription gives the size of a description, or an error when it is too large.
// It replaces control characters, which a terminal would interpret.
func checkDescription(description *swarm.NodeDescription) (int, error) {
	data, err := cluster.Encode(description)
	if err != nil {
		return 0, err
	}
	if len(data) > maxDescription {
		return 0, fmt.Errorf("the node's description has %d bytes, more than %d: %w", len(data), maxDescription, cluster.ErrInvalid)
	}
	for _, text := range []*string{
		&description.Hostname, &description.Platform.OS, &description.Platform.Architecture, &description.Engine.EngineVersion,
	} {
		*text = shorten(*text)
	}
	labels := make(map[string]string, len(description.Engine.Labels))
	for key, value := range description.Engine.Labels {
		labels[shorten(key)] = shorten(value)
	}
	if len(labels) > 0 {
		description.Engine.Labels = labels
	}
	for i, plugin := range description.Engine.Plugins {
		description.Engine.Plugins[i] = swarm.PluginDescription{Type: shorten(plugin.Type), Name: shorten(plugin.Name)}
	}
	return len(data), nil
}

// boundWarning leaves out a warning that is too long, and control characters.
func boundWarning(text string) string {
	if len(text) > maxWarning {
		return ""
	}
	return shorten(text)
}

// boundUses leaves out ranges of addresses that can't be, and those that are too many.
func boundUses(uses []cluster.AddressUse) (bound []cluster.AddressUse) {
	for _, u := range uses {
		if u.Prefix.IsValid() && u.Prefix == u.Prefix.Masked() && len(u.NetworkID) <= maxIDLength && len(u.By) <= maxName {
			bound = append(bound, cluster.AddressUse{Prefix: u.Prefix, By: shorten(u.By), Engine: u.Engine, NetworkID: boundName(u.NetworkID)})
		}
	}
	return cluster.SortAddressUses(bound)
}

// boundName leaves out what is no name that a machine gives a run or an engine.
func boundName(name string) string {
	if len(name) > maxName || strings.ContainsFunc(name, unprintable) {
		return ""
	}
	return name
}

// unprintable tells of control characters, such as those that turn the direction of text,
// and of invalid UTF-8.
func unprintable(c rune) bool { return !unicode.IsGraphic(c) || c == utf8.RuneError }

// shorten makes an agent's text one that can be kept and shown: not too long, and
// without control characters.
func shorten(text string) string {
	if len(text) > maxTextLength {
		text = strings.ToValidUTF8(text[:maxTextLength], "")
	}
	if !strings.ContainsFunc(text, unprintable) {
		return text
	}
	return strings.Map(func(c rune) rune {
		if c == '\n' || c == '\t' || !unprintable(c) {
			return c
		}
		return ' '
	}, text)
}
