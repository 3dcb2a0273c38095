package api

import (
	"context"
	"errors"
	"net/http"

	"skep/cluster"
)

// The texts that docker clients know, or show to users, word for word.
const (
	textNoSwarm      = `This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.`
	textWorker       = `This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. Please run this command on a manager node or promote the current node to a manager.`
	textLocked       = `Swarm is encrypted and needs to be unlocked before it can be used. Please use "docker swarm unlock" to unlock it.`
	textNotInSwarm   = "This node is not part of a swarm"
	textAlreadySwarm = `This node is already part of a swarm. Use "docker swarm leave" to leave this swarm and join another one.`
	textNoLeader     = "The swarm does not have a leader. It's possible that too few managers are online. Make sure more than half of the managers are online."
)

// fail makes an error whose text goes to the client as it stands.
func fail(class error, format string, args ...any) error {
	return cluster.Errorf(class, format, args...)
}

// errPage is the answer to a path that is ours but that nobody serves.
var errPage = fail(cluster.ErrNotFound, "page not found")

// errTooLarge is the answer to a body over the limit.
var errTooLarge = errors.New("request body too large")

// statuses gives each class of error its one status. The first match counts.
var statuses = []struct {
	class  error
	status int
}{
	{errTooLarge, http.StatusRequestEntityTooLarge},
	{cluster.ErrUnknownOutcome, http.StatusServiceUnavailable},
	{cluster.ErrNotFound, http.StatusNotFound},
	{cluster.ErrExists, http.StatusConflict},
	{cluster.ErrNameTaken, http.StatusConflict},
	{cluster.ErrNotLocked, http.StatusConflict},
	{cluster.ErrWrongKey, http.StatusUnauthorized},
	{cluster.ErrConflict, http.StatusInternalServerError},
	{cluster.ErrPrecondition, http.StatusBadRequest},
	{cluster.ErrInvalid, http.StatusBadRequest},
	{cluster.ErrUnsupported, http.StatusNotImplemented},
	{cluster.ErrVersion, http.StatusBadRequest},
	{cluster.ErrDenied, http.StatusForbidden},
	{cluster.ErrRemoved, http.StatusServiceUnavailable},
	{cluster.ErrLineage, http.StatusServiceUnavailable},
	{cluster.ErrNotManager, http.StatusServiceUnavailable},
	{cluster.ErrNotLeader, http.StatusServiceUnavailable},
	{cluster.ErrNoLeader, http.StatusServiceUnavailable},
	{cluster.ErrUnavailable, http.StatusServiceUnavailable},
	{cluster.ErrUnreachable, http.StatusServiceUnavailable},
	{cluster.ErrLocked, http.StatusServiceUnavailable},
	{context.DeadlineExceeded, http.StatusServiceUnavailable},
	{context.Canceled, http.StatusServiceUnavailable},
}

// statusOf is the only place where an error becomes a status.
func statusOf(err error) int {
	var refusal *passedOn
	if errors.As(err, &refusal) {
		return refusal.status
	}
	for _, s := range statuses {
		if errors.Is(err, s.class) {
			return s.status
		}
	}
	return http.StatusInternalServerError
}

// errorBody is the form in which clients read errors.
type errorBody struct {
	Message string `json:"message"`
}
