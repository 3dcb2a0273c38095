package console

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"skep/cluster"
)

// maxRows is how many rows a list shows: more is for the filter.
const maxRows = 500

// count writes a number with its thousands apart, by a narrow space that doesn't break.
func count[T ~int | ~int64 | ~uint64 | ~uint32](n T) string {
	digits := fmt.Sprint(n)
	for i := len(digits) - 3; i > 0 && digits[i-1] != '-'; i -= 3 {
		digits = digits[:i] + "\u202f" + digits[i:]
	}
	return digits
}

// plural is a number with the word for it.
func plural(n int, word string) string {
	if n != 1 {
		word += "s"
	}
	return count(n) + " " + word
}

// short is the beginning of an ID, as docker's lists have it.
func short(id string) string { return id[:min(len(id), 12)] }

// span writes how long something took, as exactly as people need it.
func span(d time.Duration) string {
	switch {
	case d < time.Second:
		return strconv.FormatInt(max(d.Milliseconds(), 0), 10) + " ms"
	case d < 2*time.Minute:
		return strconv.Itoa(int(d.Seconds())) + " s"
	case d < 2*time.Hour:
		return strconv.Itoa(int(d.Minutes())) + " min"
	case d < 48*time.Hour:
		return strconv.Itoa(int(d.Hours())) + " h"
	}
	return strconv.Itoa(int(d.Hours()/24)) + " d"
}

// moment is a point in time as pages show it: by its age, and in full for who asks.
type moment struct{ Age, At string }

func (l *look) since(at time.Time) moment {
	if at.IsZero() {
		return moment{}
	}
	return moment{Age: span(max(l.now.Sub(at), 0).Truncate(time.Second)), At: at.UTC().Format(time.RFC3339)}
}

// sentence makes one of a text that may go on after another.
func sentence(text string) string {
	first, size := utf8.DecodeRuneInString(text)
	if text == "" {
		return ""
	}
	text = string(unicode.ToUpper(first)) + text[size:]
	if !strings.HasSuffix(text, ".") {
		text += "."
	}
	return text
}

// bytes writes a size in the unit that suits it.
func size(n int64) string {
	switch {
	case n >= 10<<30:
		return strconv.FormatInt(n>>30, 10) + " GiB"
	case n >= 1<<30:
		return strconv.FormatFloat(float64(n)/(1<<30), 'f', 1, 64) + " GiB"
	case n >= 1<<20:
		return strconv.FormatInt(n>>20, 10) + " MiB"
	}
	return strconv.FormatInt(n, 10) + " B"
}

// mark is a state as pages show it: Kind names its shape and colour, Word says it.
type mark struct{ Kind, Word string }

// taskMark is how a task is.
func taskMark(t *cluster.Task) mark {
	state := t.Status.State
	switch {
	case state == cluster.StateComplete:
		return mark{"done", "complete"}
	case state == cluster.StateFailed, state == cluster.StateRejected, state == cluster.StateOrphaned:
		return mark{"bad", state.String()}
	case state.Terminal():
		return mark{"off", state.String()}
	case !t.Live() && !t.Assigned():
		return mark{"off", "given up"}
	case !t.Live():
		return mark{"stop", "stopping"}
	case state == cluster.StateRunning:
		return mark{"ok", "running"}
	case state <= cluster.StatePending:
		return mark{"wait", "waiting"}
	case state == cluster.StateReady && t.Desired < cluster.StateRunning:
		return mark{"wait", "ready"}
	}
	return mark{"busy", state.String()}
}

// nodeMark is how a node is.
func nodeMark(n *cluster.Node) mark {
	switch state := n.Status.State; state {
	case cluster.NodeReady:
		switch n.Spec.Availability {
		case "drain":
			return mark{"stop", "drained"}
		case "pause":
			return mark{"wait", "paused"}
		}
		return mark{"ok", "ready"}
	case cluster.NodeDown:
		return mark{"bad", "down"}
	default:
		return mark{"busy", state.String()}
	}
}

// managerMark is what a manager is in raft.
func managerMark(m cluster.ManagerHealth) mark {
	switch {
	case !m.Reachable:
		return mark{"bad", "unreachable"}
	case m.Leader && !m.Ready:
		return mark{"busy", "about to lead"}
	case m.Leader:
		return mark{"lead", "leader"}
	case m.State == "candidate":
		return mark{"busy", "candidate"}
	case m.State == "leader": // It says so, or did when it was asked; this manager knows of another, or of none.
		return mark{"busy", "led"}
	case !m.Voter:
		return mark{"wait", "learner"}
	}
	return mark{"ok", "follower"}
}

// waits says why a task that is to run doesn't yet, or why one ended; empty when there is
// nothing to say.
func waits(t *cluster.Task) string {
	switch {
	case t.Status.Err != "":
		return t.Status.Err
	case t.Status.Message == t.Status.State.String():
	case t.Status.State < cluster.StateRunning && t.Live(), strings.HasPrefix(t.Status.Message, "stopping:"):
		return t.Status.Message
	}
	return ""
}

func unixNano(n int64) time.Time { return time.Unix(0, n) }

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// plain writes a number as a name: of a port, a slot, a revision.
func plain[T ~int | ~uint64 | ~uint32](n T) string { return fmt.Sprint(n) }

// cores writes billionths of a CPU as CPUs.
func cores(nano int64) string { return strconv.FormatFloat(float64(nano)/1e9, 'f', -1, 64) }
