// Package api serves the Docker Engine API: the one public interface of skep.
// The swarm part (/swarm /nodes /services /tasks, logs, /events, /info, /version,
// /_ping, /distribution) is answered here; every other path is passed on to the
// local Docker Engine, hijacked streams included, so that one DOCKER_HOST serves
// all commands.
//
// Who runs it: each node makes one Server and serves Local on its own sockets,
// whatever its role; a manager also serves Remote behind its control port, for
// the other managers. Run follows the database to keep the last events; it is
// the only goroutine of the package that isn't a request's.
//
// The way of a request through Local: limits and version (server.go), the table
// of routes (routes.go), then either a handler of this node (ping, version, info,
// init, join, leave, events, the engine), or the leader's: executed here when
// this manager leads, streamed from the leader otherwise (lead.go, forward.go). A handler
// is func(ctx, *request) (response, error); it writes nothing itself, so a request
// that lost its leader before anything happened can be tried again as a whole.
//
// Guarantees: /_ping, /info and /version need no leader and no engine. A read is
// answered from a state that was current after the request came in. A write whose
// outcome isn't known is answered with cluster.ErrUnknownOutcome and never
// repeated. What skep can't do yet is refused with the name of the field, never
// ignored. Errors change nothing, carry one status (errors.go) and the words that
// docker clients look for. Keys, tokens (but for GET /swarm), registry
// credentials and environment values reach neither logs nor error texts.
package api
