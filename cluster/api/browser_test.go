package api

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

// TestLoopback_RefusesWebPages sends what browsers send for a page of evil.example: with its
// own name bound to this machine's address, and to the address itself.
func TestLoopback_RefusesWebPages(t *testing.T) {
	b, engine := newBench(t), 0
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { engine++ }))
	defer upstream.Close()
	b.server.engine = newEngine("tcp://"+upstream.Listener.Addr().String(), b.server.Log)
	handler := b.server.Loopback()
	send := func(method, path, host string, headers ...string) answer {
		t.Helper()
		var body *strings.Reader
		if body = strings.NewReader(""); strings.HasPrefix(path, "/secrets") {
			body = strings.NewReader(`{"Name":"s","Data":"eA=="}`)
		}
		r := httptest.NewRequest(method, path, body)
		r.Host = host
		r.Header.Set("Content-Type", "application/json")
		for i := 0; i+1 < len(headers); i += 2 {
			r.Header[headers[i]] = []string{headers[i+1]}
		}
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		return answer{w.Code, w.Header(), w.Body.String()}
	}
	requests := [][2]string{
		{"POST", "/secrets/create"}, {"GET", "/swarm"}, {"GET", "/_ping"}, {"GET", "/v1.51/info"}, {"GET", "/events"}, {"GET", "/none/of/ours"},
		// The engine's own, with what is hijacked and websockets among them.
		{"GET", "/containers/json"}, {"POST", "/containers/create"}, {"POST", "/exec/x/start"}, {"GET", "/containers/x/attach/ws"}, {"POST", "/session"},
	}
	for _, request := range requests {
		for _, host := range []string{"evil.example", "evil.example:2375", "127.0.0.1.evil.example", "localhost.evil.example:2375", "", "docker", "127.1", "2130706433:2375"} {
			send(request[0], request[1], host).want(t, 403, "is neither an address nor localhost")
		}
		for _, origin := range []string{"http://evil.example", "null", "http://127.0.0.1:2375", ""} {
			send(request[0], request[1], "127.0.0.1:2375", "Origin", origin).want(t, 403, "Origin")
		}
		for _, site := range []string{"cross-site", "same-site", "same-origin"} {
			send(request[0], request[1], "localhost:2375", "Sec-Fetch-Site", site).want(t, 403, "Sec-Fetch-Site")
		}
	}
	if engine != 0 {
		t.Errorf("%d of them reached the engine", engine)
	}
	if secrets := len(slices.Collect(b.view().Secrets())); secrets != 0 {
		t.Errorf("they made %d secrets", secrets)
	}
	for _, host := range []string{"127.0.0.1", "127.0.0.1:2375", "127.9.9.9:1", "[::1]:2375", "[::1]", "localhost", "LocalHost:2375"} {
		send("GET", "/swarm", host).want(t, 200, "JoinTokens")
		send("GET", "/containers/json", host).want(t, 200, "")
	}
	send("POST", "/secrets/create", "127.0.0.1:2375", "Sec-Fetch-Site", "none").want(t, 201, "")
	if engine != 7 {
		t.Errorf("%d requests of 7 reached the engine", engine)
	}
}
