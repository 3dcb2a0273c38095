package manager

import (
	"io"
	"net/http"
	"testing"

	"skep/cluster"
)

// A forwarded request reaches the API as it was made, and so does the answer come back; one that breaks off has an unknown outcome,
// and one that can't be read wasn't executed.
func TestAnswerAPI(t *testing.T) {
	m := &Manager{}
	m.cfg.API = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		switch r.URL.Path {
		case "/v1.41/services/a b/update":
			w.Header().Set("X", r.Header.Get("Skep-By"))
			w.WriteHeader(http.StatusCreated)
			io.WriteString(w, r.Method+" "+r.URL.Query().Get("version")+" "+string(body))
		case "/half":
			w.WriteHeader(http.StatusCreated)
			panic(http.ErrAbortHandler)
		}
	})
	ask := func(r apiRequest) apiAnswer {
		content, err := cluster.Encode(r)
		if err != nil {
			t.Fatal(err)
		}
		return m.answerAPI(t.Context(), content)
	}
	got := ask(apiRequest{Method: "POST", Path: "/v1.41/services/a%20b/update?version=7", Header: http.Header{"Skep-By": {"uid 0 on n1"}}, Body: []byte("{}")})
	if got.Status != http.StatusCreated || got.Header.Get("X") != "uid 0 on n1" || string(got.Body) != "POST 7 {}" {
		t.Errorf("%+v %q", got, got.Body)
	}
	if got := ask(apiRequest{Method: "GET", Path: "/empty"}); got.Status != http.StatusOK || got.Refused != "" {
		t.Errorf("an answer without anything: %+v", got)
	}
	if got := ask(apiRequest{Method: "POST", Path: "/half"}); got.Status != http.StatusServiceUnavailable || string(got.Body) != unknownOutcome {
		t.Errorf("one that broke off: %+v %q", got, got.Body)
	}
	for _, bad := range []apiAnswer{m.answerAPI(t.Context(), []byte("no CBOR")), ask(apiRequest{Method: "BAD METHOD", Path: "/"}), ask(apiRequest{Method: "GET", Path: "%zz"})} {
		if bad.Status != 0 || bad.Refused == "" {
			t.Errorf("%+v was executed", bad)
		}
	}
}
