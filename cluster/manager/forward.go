package manager

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"

	"skep/cluster"
	"skep/cluster/manager/peers"
)

// callAPI is the kind of a call that carries a request of the API.
const callAPI = 2

// apiRequest is a request of the API that a follower forwards.
type apiRequest struct {
	Method string      `cbor:"1,keyasint"`
	Path   string      `cbor:"2,keyasint"` // with the query
	Header http.Header `cbor:"3,keyasint,omitempty"`
	Body   []byte      `cbor:"4,keyasint,omitempty"`
}

// apiAnswer is the leader's answer. Without a status the request wasn't executed, and Refused says why.
type apiAnswer struct {
	Status  int         `cbor:"1,keyasint,omitempty"`
	Header  http.Header `cbor:"2,keyasint,omitempty"`
	Body    []byte      `cbor:"3,keyasint,omitempty"`
	Refused string      `cbor:"4,keyasint,omitempty"`
}

// Calls carries small requests of the API to another manager over the connection for calls, which costs both a fraction of
// an exchange of HTTP. The answer comes whole, so it is for writes. Errors that wrap cluster.ErrUnreachable mean that nothing was
// executed.
func (m *Manager) Calls(peer cluster.Peer) http.RoundTripper { return calls{m.transport, peer} }

type calls struct {
	transport *peers.Transport
	peer      cluster.Peer
}

// RoundTrip implements http.RoundTripper.
func (c calls) RoundTrip(r *http.Request) (*http.Response, error) {
	asked := apiRequest{Method: r.Method, Path: strings.TrimPrefix(r.URL.RequestURI(), "/v1/api"), Header: r.Header}
	if r.Body != nil {
		var err error
		if asked.Body, err = io.ReadAll(r.Body); err != nil {
			return nil, fmt.Errorf("forward a request: %w: %w", cluster.ErrUnreachable, err)
		}
	}
	content, err := cluster.Encode(asked)
	if err != nil {
		return nil, fmt.Errorf("forward a request: %w: %w", cluster.ErrUnreachable, err)
	}
	said, err := c.transport.Call(r.Context(), c.peer.NodeID, c.peer.Addr, callAPI, content)
	if err != nil {
		return nil, err
	}
	var answer apiAnswer
	if err := cluster.Decode(said, &answer); err != nil {
		return nil, fmt.Errorf("forward a request: %w", err)
	}
	if answer.Status == 0 {
		return nil, fmt.Errorf("forward a request: %w: %s", cluster.ErrUnreachable, answer.Refused)
	}
	if answer.Header == nil {
		answer.Header = http.Header{}
	}
	return &http.Response{StatusCode: answer.Status, Header: answer.Header, Body: io.NopCloser(bytes.NewReader(answer.Body)), ContentLength: int64(len(answer.Body)), Request: r}, nil
}

// answerAPI has the API execute a request that another manager forwarded.
func (m *Manager) answerAPI(ctx context.Context, content []byte) apiAnswer {
	var asked apiRequest
	if err := cluster.Decode(content, &asked); err != nil {
		return apiAnswer{Refused: err.Error()}
	}
	r, err := http.NewRequestWithContext(ctx, asked.Method, asked.Path, bytes.NewReader(asked.Body))
	if err != nil {
		return apiAnswer{Refused: err.Error()}
	}
	r.Header, r.RequestURI = asked.Header, asked.Path
	if r.Header == nil {
		r.Header = http.Header{}
	}
	w := &answerWriter{answer: apiAnswer{Header: http.Header{}}}
	if !w.serve(m.cfg.API, r) {
		// Its answer broke off, and what it did isn't known.
		return apiAnswer{Status: http.StatusServiceUnavailable, Header: http.Header{"Content-Type": {"application/json"}}, Body: []byte(unknownOutcome)}
	}
	return w.answer
}

// unknownOutcome is the answer to a request that broke off.
var unknownOutcome = fmt.Sprintf("{%q:%q}\n", "message", cluster.ErrUnknownOutcome.Error())

// answerWriter keeps an answer.
type answerWriter struct{ answer apiAnswer }

func (w *answerWriter) serve(handler http.Handler, r *http.Request) (whole bool) {
	defer func() {
		switch fault := recover(); fault {
		case nil:
		case http.ErrAbortHandler:
			whole = false
		default:
			panic(fault)
		}
	}()
	handler.ServeHTTP(w, r)
	w.WriteHeader(http.StatusOK)
	return len(w.answer.Body) <= peers.MaxCall/2
}

// Header implements http.ResponseWriter.
func (w *answerWriter) Header() http.Header { return w.answer.Header }

// WriteHeader implements http.ResponseWriter.
func (w *answerWriter) WriteHeader(status int) {
	if w.answer.Status == 0 {
		w.answer.Status = status
	}
}

// Write implements http.ResponseWriter.
func (w *answerWriter) Write(data []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	w.answer.Body = append(w.answer.Body, data...)
	return len(data), nil
}
