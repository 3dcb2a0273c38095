package api

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
)

func TestEngine_TellsOfItsBridgesAndItsSwarm(t *testing.T) {
	answers := map[string]string{
		"/networks": `[{"Name":"bridge","Id":"aaaaaaaaaaaaaaaa","Driver":"bridge","Options":{"com.docker.network.bridge.name":"docker0"}},
			{"Name":"web","Id":"0123456789abcdef","Driver":"bridge","Options":{}},
			{"Name":"lan","Id":"fedcba9876543210","Driver":"macvlan","Options":{"parent":"eth0"}},
			{"Name":"named","Id":"eeeeeeeeeeeeeeee","Driver":"bridge","Options":{"com.docker.network.bridge.name":"lab0"}}]`,
		"/info": `{"Swarm":{"NodeID":"abc","LocalNodeState":"locked"}}`,
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Write([]byte(answers[r.URL.Path])) }))
	defer server.Close()
	s := New(Config{Engine: "tcp://" + server.Listener.Addr().String()})
	bridges, err := s.EngineBridges(t.Context())
	if want := []string{"docker0", "br-0123456789ab", "lab0"}; err != nil || !slices.Equal(bridges, want) {
		t.Errorf("bridges are %v, %v; want %v", bridges, err, want)
	}
	for answer, want := range map[string]bool{
		`{"Swarm":{"NodeID":"abc","LocalNodeState":"locked"}}`: true, `{"Swarm":{"LocalNodeState":"inactive"}}`: false, `{}`: false,
	} {
		answers["/info"] = answer
		if _, is, err := s.EngineSwarm(t.Context()); err != nil || is != want {
			t.Errorf("%s: %v, %v", answer, is, err)
		}
	}
	alone := New(Config{})
	if bridges, err := alone.EngineBridges(t.Context()); err != nil || bridges != nil {
		t.Errorf("without an engine: %v, %v", bridges, err)
	}
}
