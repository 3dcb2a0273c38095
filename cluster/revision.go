package cluster

import (
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/docker/docker/api/types/swarm"
)

const (
	// DefaultRevisionHistory is what holds without LabelRevisionHistory.
	DefaultRevisionHistory = 10
	// MaxRevisionHistory bounds that label: each revision is a few KB on every manager.
	MaxRevisionHistory = 1000
)

// HeaderMessage is the header by which a client says of a change of a service why it is made, as
// url.QueryEscape writes it: at most MaxMessage bytes in one line.
const (
	HeaderMessage = "Skep-Message"
	MaxMessage    = 500
)

// CheckMessage refuses what a revision doesn't keep as its message.
func CheckMessage(text string) error {
	switch {
	case len(text) > MaxMessage:
		return Errorf(ErrInvalid, "the message has %d bytes, more than %d", len(text), MaxMessage)
	case !utf8.ValidString(text) || strings.ContainsFunc(text, func(c rune) bool { return !unicode.IsPrint(c) }):
		return Errorf(ErrInvalid, "the message has more than one line, or characters that can't be printed")
	}
	return nil
}

// RevisionHistory is how many revisions of each service a cluster keeps: the last
// ones. What the service runs, or goes back to without a number, or what a task
// refers to, is kept in any case.
func RevisionHistory(spec swarm.Spec) int {
	if n, ok := LabelRevisionHistory.Of(spec.Labels); ok {
		return n
	}
	return DefaultRevisionHistory
}

// KeptRevision is what the API tells of a revision, as `skep service history`
// shows it. The credentials aren't part of it.
type KeptRevision struct {
	Number    uint64
	CreatedAt time.Time
	Image     string
	// Current marks what the service runs, or is being updated to; Previous what a
	// rollback without a number goes back to.
	Current, Previous bool
	// By is who made it, as far as that is known, such as "uid 0 on node-1", and Message what
	// they said of it.
	By           string `json:",omitempty"`
	Message      string `json:",omitempty"`
	TaskTemplate swarm.TaskSpec
	EndpointSpec *swarm.EndpointSpec `json:",omitempty"`
	Labels       map[string]string
}

// RollbackServiceTo goes back to a kept revision of the service, as a user asks
// for it: to what that one ran (TaskTemplate and EndpointSpec) and to the labels
// that the service had with it. The mode, with the number of replicas, and the
// update and rollback configurations aren't part of a revision and stay as they
// are. A rollback without a number then returns to what was before. auth is a new
// X-Registry-Auth value for the revision, or empty to keep the one it has.
func RollbackServiceTo(old *Service, to *Revision, auth string, now time.Time) (Change, error) {
	switch {
	case old.Spec.Mode.ReplicatedJob != nil || old.Spec.Mode.GlobalJob != nil:
		return Change{}, Errorf(ErrUnsupported, "service %s is a job, and a job can't be rolled back to a revision: update it, or create it anew", old.Spec.Name)
	case to.Number == old.Revision:
		return Change{}, Errorf(ErrPrecondition, "service %s is at revision %d already", old.Spec.Name, to.Number)
	}
	next, current := *old, old.Spec
	next.Spec.TaskTemplate, next.Spec.EndpointSpec, next.Spec.Labels = to.Spec, to.Endpoint, to.ServiceLabels
	next.Previous, next.PreviousRevision = &current, old.Revision
	next.Revision = to.Number
	leaveImage(old, &next)
	change := Change{
		Service: &next,
		Rollout: &Rollout{
			ServiceID: old.ID,
			State:     swarm.UpdateStateRollbackStarted,
			Revision:  to.Number,
			StartedAt: now,
			Message:   "manually requested rollback to revision " + strconv.FormatUint(to.Number, 10),
		},
	}
	if auth != "" && auth != to.Auth {
		same := *to
		same.Auth = auth
		change.Revision = &same
	}
	return change, nil
}
