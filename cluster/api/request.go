package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/docker/docker/api/types/versions"

	"skep/cluster"
)

// request is what a handler gets to see of a request. The body has been read,
// within the limit, so that the request can be tried or sent more than once.
type request struct {
	http    *http.Request
	manager Manager // set for the leader's routes
	version string  // API version the client speaks
	vars    func(name string) string
	query   url.Values
	body    []byte
}

// response is what a handler answers: a JSON body (none if nil), a list, or a stream, or
// the local engine's answer.
type response struct {
	status int // 0 means 200
	body   any
	list   *listing // in the place of body
	// stream writes headers and body itself. The context is the request's.
	stream func(ctx context.Context, w http.ResponseWriter)
	// engine passes the request on to the local engine.
	engine bool
	// path, if it is set, is where the engine is asked in place of the request's; after hears the
	// status of its answer, 0 when there is none.
	path  string
	after func(status int)
}

// handler serves one route. It must not have changed anything when it returns an
// error, unless that is ErrUnknownOutcome.
type handler func(ctx context.Context, r *request) (response, error)

// before tells whether the client speaks an API older than version.
func (r *request) before(version string) bool { return versions.LessThan(r.version, version) }

// flag reads a query parameter as moby does: false when empty, 0, no, false or
// none, otherwise true.
func (r *request) flag(name string) bool {
	switch strings.ToLower(strings.TrimSpace(r.query.Get(name))) {
	case "", "0", "no", "false", "none":
		return false
	}
	return true
}

// strictFlag reads a query parameter that must be a boolean when it is there.
func (r *request) strictFlag(name string) (bool, error) {
	text := r.query.Get(name)
	if text == "" {
		return false, nil
	}
	value, err := strconv.ParseBool(text)
	if err != nil {
		return false, fail(cluster.ErrInvalid, "invalid value for %s: %s", name, text)
	}
	return value, nil
}

// index reads the version that a write is based on; what names the object.
func (r *request) index(what string) (uint64, error) {
	text := r.query.Get("version")
	index, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, fail(cluster.ErrInvalid, "invalid %s version '%s': %v", what, text, errors.Unwrap(err))
	}
	return index, nil
}

// decode reads the JSON body into v. As with moby, an empty body leaves v alone,
// and neither another content type nor anything after the JSON is accepted, nor
// what is beyond the bounds.
func (r *request) decode(v any) error { return r.decodeWith(v, false) }

// decodeStrict refuses fields that aren't known too: a newer client would think
// that what it asked for was done.
func (r *request) decodeStrict(v any) error { return r.decodeWith(v, true) }

func (r *request) decodeWith(v any, strict bool) error {
	contentType := r.http.Header.Get("Content-Type")
	if contentType == "" && len(r.body) == 0 {
		return nil
	}
	media, _, err := mime.ParseMediaType(contentType)
	if err != nil || media != "application/json" {
		return fail(cluster.ErrInvalid, "unsupported Content-Type header (%s): must be 'application/json'", contentType)
	}
	if len(r.body) == 0 {
		return nil
	}
	decoder := json.NewDecoder(bytes.NewReader(r.body))
	if strict {
		decoder.DisallowUnknownFields()
	}
	if err := decoder.Decode(v); err != nil {
		if errors.Is(err, io.EOF) {
			return fail(cluster.ErrInvalid, "invalid JSON: got EOF while reading request body")
		}
		return fail(cluster.ErrInvalid, "invalid JSON: %v", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return fail(cluster.ErrInvalid, "unexpected content after JSON")
	}
	return checkBounds(v)
}

// writeJSON answers with v. The content type has no charset: clients compare the
// whole of it. v is encoded first, so that a failure can still be said.
func writeJSON(w http.ResponseWriter, status int, v any) {
	var buffer bytes.Buffer
	encoder := json.NewEncoder(&buffer)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		status = http.StatusInternalServerError
		buffer.Reset()
		buffer.WriteString(`{"message":"the answer could not be encoded"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(buffer.Len()))
	w.WriteHeader(status)
	// The client may have gone; there is nobody left to tell.
	_, _ = w.Write(buffer.Bytes())
}
