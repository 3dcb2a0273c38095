package api

import (
	"strings"
	"testing"

	"skep/cluster"
	"skep/store"
)

func TestTokens_AreToldOnce(t *testing.T) {
	b := newBench(t)
	b.update(func(tx *store.Tx) error {
		next := *tx.Cluster()
		next.WorkerToken = cluster.NewJoinToken(strings.Repeat("d", 50), b.server.Random).String()
		return tx.Put(&next)
	})
	var made cluster.TokenShown
	b.do("POST", "/skep/v1/tokens", cluster.TokenRequest{Role: "worker", Labels: map[string]string{"zone": "a"}, Uses: 5, For: "1h"}).want(t, 200, "").into(t, &made)
	token, err := cluster.ParseJoinToken(made.Token)
	if err != nil || token.Digest != strings.Repeat("d", 50) || made.State != "good" || made.Uses != 5 || made.By == "" {
		t.Errorf("made %+v, %v", made, err)
	}
	for _, path := range []string{"/skep/v1/tokens", "/swarm", "/skep/v1/audit", "/skep/v1/status", "/info"} {
		if answer := b.do("GET", path, nil); strings.Contains(string(answer.body), token.Secret) {
			t.Errorf("GET %s tells it: %s", path, answer.body)
		}
	}
	var list []cluster.TokenShown
	b.do("GET", "/skep/v1/tokens", nil).want(t, 200, "").into(t, &list)
	if len(list) != 1 || list[0].ID != made.ID || list[0].Labels["zone"] != "a" || list[0].Used != 0 {
		t.Errorf("listed %+v", list)
	}
	b.do("POST", "/skep/v1/tokens", cluster.TokenRequest{Role: "king", Uses: 1, For: "1h"}).want(t, 400, "invalid role")
	b.do("POST", "/skep/v1/tokens", map[string]any{"Role": "worker", "Uses": 1, "For": "1h", "Address": "x"}).want(t, 400, "unknown field")
	b.do("DELETE", "/skep/v1/tokens/nobody", nil).want(t, 404, "join token nobody not found")
	b.do("DELETE", "/skep/v1/tokens/"+made.ID[:8], nil).want(t, 200, "")
	b.do("GET", "/skep/v1/tokens", nil).want(t, 200, "").into(t, &list)
	if len(list) != 0 {
		t.Errorf("removed, and there are %+v", list)
	}
	told := strings.Join(b.told(), "\n")
	if strings.Count(told, "token") < 4 || !strings.Contains(told, "POST /skep/v1/tokens, token") {
		t.Errorf("the audit log tells\n%s", told)
	}
}
