package cluster

import (
	"errors"
	"fmt"
)

// The errors that cross packages, each defined here once. They are wrapped with
// what was tried ("update service web: ..."); cluster/api maps each to one HTTP
// status. Messages contain the words that docker clients look for.
var (
	// ErrInvalid: the request makes no sense as it stands (400).
	ErrInvalid = errors.New("invalid argument")
	// ErrNotFound: no such object (404).
	ErrNotFound = errors.New("not found")
	// ErrExists: an object of this ID is there already (409).
	ErrExists = errors.New("already exists")
	// ErrNameTaken: another object of the same kind has this name, without regard to case (409).
	ErrNameTaken = errors.New("name conflicts with an existing object")
	// ErrConflict: the object changed since the caller read it (500, as clients expect).
	ErrConflict = errors.New("update out of sequence")
	// ErrPrecondition: right in form, but not possible in the present state (400).
	ErrPrecondition = errors.New("precondition failed")
	// ErrUnsupported: skep, or this version of it, doesn't do that (501).
	ErrUnsupported = errors.New("not supported")
	// ErrVersion: a node's version of skep and the cluster's level don't go together (400).
	ErrVersion = errors.New("the version doesn't fit")
	// ErrDenied: the caller's certificate or token doesn't allow this (403).
	ErrDenied = errors.New("permission denied")
	// ErrRemoved: the leader doesn't know the node that asks: it was removed (503).
	ErrRemoved = errors.New("this node was removed from the swarm")
	// ErrLineage: a manager's database isn't a copy of the leader's, and can't become one (503).
	ErrLineage = errors.New("the database is of another lineage")
	// ErrNotManager: asked of a node that isn't a manager (503).
	ErrNotManager = errors.New("this node is not a swarm manager")
	// ErrNotLeader: only the leader can do this; ask it instead (503).
	ErrNotLeader = errors.New("this manager is not the leader")
	// ErrNoLeader: the managers have no leader at present, perhaps for want of a quorum (503).
	ErrNoLeader = errors.New("the swarm does not have a leader")
	// ErrUnknownOutcome: leadership was lost while the write was under way; it may or may not have happened (503).
	ErrUnknownOutcome = errors.New("the outcome of the write is unknown: leadership was lost; read before trying again")
	// ErrUnavailable: something needed doesn't answer at present (503).
	ErrUnavailable = errors.New("unavailable")
	// ErrUnreachable: no connection could be opened, so nothing was sent (503).
	ErrUnreachable = errors.New("cannot be reached")
	// ErrLocked: the node's keys are encrypted and no unlock key was given (503).
	ErrLocked = errors.New("swarm is encrypted and needs to be unlocked")
	// ErrNotLocked: there is nothing to unlock (409).
	ErrNotLocked = errors.New("swarm is not locked")
	// ErrWrongKey: the unlock key given isn't the one the keys are encrypted under (401).
	ErrWrongKey = errors.New("invalid key provided")
)

// said is an error whose text is for users as it stands.
type said struct {
	class error
	text  string
}

func (s *said) Error() string { return s.text }
func (s *said) Unwrap() error { return s.class }

// Errorf makes an error of one of the classes above whose whole text is what is
// given: for users, to whom the name of the class adds nothing.
func Errorf(class error, format string, args ...any) error {
	return &said{class: class, text: fmt.Sprintf(format, args...)}
}
