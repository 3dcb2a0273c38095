package cluster

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"
)

func testToken(t *testing.T, id string, uses int, length string, now time.Time) (LimitedToken, string) {
	t.Helper()
	text := NewJoinToken(strings.Repeat("d", digestLength), rand.NewChaCha8([32]byte{id[0]}))
	made, err := NewLimitedToken(id, text, TokenRequest{Role: "worker", Labels: map[string]string{"zone": "a"}, Uses: uses, For: length}, "uid 0 on n1", now)
	if err != nil {
		t.Fatal(err)
	}
	return made, text.String()
}

func TestLimitedToken_IsGoodForSomeNodesAndForAWhile(t *testing.T) {
	now := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	made, text := testToken(t, "a", 2, "1h", now)
	if _, err := ParseJoinToken(text); err != nil {
		t.Errorf("it isn't in Swarm's form: %v", err)
	}
	if encoded, err := Encode(made); err != nil || strings.Contains(string(encoded), text[len(text)-secretLength:]) {
		t.Errorf("what is kept has the secret in it, or %v", err)
	}
	c := &Cluster{Tokens: []LimitedToken{made}}
	if c.FindToken(text) == nil || c.FindToken(text+"x") != nil || c.FindToken("") != nil {
		t.Error("it isn't found by its text alone")
	}
	for used := range 2 {
		next, err := c.UseToken(text, now.Add(time.Hour-1))
		if err != nil || int(next.Tokens[0].Used) != used+1 || int(c.Tokens[0].Used) != used {
			t.Fatalf("use %d: %+v, %v; before it was %+v", used+1, next, err, c.Tokens)
		}
		if _, err := c.UseToken(text, now.Add(time.Hour)); !errors.Is(err, ErrDenied) || !strings.Contains(err.Error(), "token a was good until 2030-01-02T04:04:05Z") {
			t.Errorf("after its time: %v", err)
		}
		c = next
	}
	if _, err := c.UseToken(text, now); !errors.Is(err, ErrDenied) || !strings.Contains(err.Error(), "token a was for 2 nodes, and all have joined") {
		t.Errorf("a third node: %v", err)
	}
	if _, err := c.UseToken("other", now); !errors.Is(err, ErrDenied) {
		t.Errorf("another token: %v", err)
	}
	shown := c.Tokens[0].Shown(now)
	if shown.State != "used up" || shown.Used != 2 || shown.Token != "" || !maps.Equal(shown.Labels, map[string]string{"zone": "a"}) || !shown.Until.Equal(now.Add(time.Hour)) {
		t.Errorf("shown %+v", shown)
	}
	if state := c.Tokens[0].Shown(now.Add(2 * time.Hour)).State; state != "expired" {
		t.Errorf("after its time it is %s", state)
	}
}

func TestNewLimitedToken_Refuses(t *testing.T) {
	good := func() TokenRequest { return TokenRequest{Role: "worker", Uses: 1, For: "1h"} }
	for says, change := range map[string]func(*TokenRequest){
		`invalid role "king"`:                     func(r *TokenRequest) { r.Role = "king" },
		`invalid role ""`:                         func(r *TokenRequest) { r.Role = "" },
		`it can't be good for ""`:                 func(r *TokenRequest) { r.For = "" },
		`it can't be good for "-1h"`:              func(r *TokenRequest) { r.For = "-1h" },
		`it can't be good for "9000h"`:            func(r *TokenRequest) { r.For = "9000h" },
		"0 nodes: it lets in 1 to 10000":          func(r *TokenRequest) { r.Uses = 0 },
		"10001 nodes":                             func(r *TokenRequest) { r.Uses = 10001 },
		"skep knows no such label of a node":      func(r *TokenRequest) { r.Labels = map[string]string{"skep.x": "y"} },
		"is for nodes that are drained":           func(r *TokenRequest) { r.Labels = map[string]string{LabelDrainUntil.Name: "2030-01-02T03:04:05Z"} },
		`"a b" is no name of a label`:             func(r *TokenRequest) { r.Labels = map[string]string{"a b": "c"} },
		`"" is no name of a label`:                func(r *TokenRequest) { r.Labels = map[string]string{"": "c"} },
		"label skep.reserve.cpus: \"x\" won't do": func(r *TokenRequest) { r.Labels = map[string]string{"skep.reserve.cpus": "x"} },
		fmt.Sprint(MaxTokenLabels+1, " labels are"): func(r *TokenRequest) {
			r.Labels = map[string]string{}
			for i := range MaxTokenLabels + 1 {
				r.Labels[fmt.Sprint("l", i)] = ""
			}
		},
	} {
		r := good()
		change(&r)
		if _, err := NewLimitedToken("a", JoinToken{}, r, "", time.Now()); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), says) {
			t.Errorf("%+v: %v, want %q", r, err, says)
		}
	}
	r := good()
	if made, err := NewLimitedToken("a", JoinToken{}, r, "", time.Now()); err != nil || made.Role != swarm.NodeRoleWorker {
		t.Errorf("%+v, %v", made, err)
	}
}

func TestWithToken_ForgetsThoseThatAreOver(t *testing.T) {
	now := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	c := &Cluster{}
	for i := range MaxTokens {
		length := "2h"
		if i == 40 || i == 60 {
			length = "1h"
		}
		made, _ := testToken(t, fmt.Sprint("t", i), 1, length, now)
		next, err := c.WithToken(made, now)
		if err != nil || len(next.Tokens) != i+1 {
			t.Fatalf("%d: %v", i, err)
		}
		c = next
	}
	more, _ := testToken(t, "more", 1, "2h", now)
	if _, err := c.WithToken(more, now); !errors.Is(err, ErrPrecondition) {
		t.Errorf("with %d good ones: %v", MaxTokens, err)
	}
	next, err := c.WithToken(more, now.Add(time.Hour))
	if err != nil || len(next.Tokens) != MaxTokens || next.Tokens[MaxTokens-1].ID != "more" {
		t.Fatalf("%v", err)
	}
	if _, _, err := next.WithoutToken("t40"); !errors.Is(err, ErrNotFound) {
		t.Errorf("the oldest that is over is still there: %v", err)
	}
	if _, _, err := next.WithoutToken("t6"); err != nil { // also the beginning of others
		t.Errorf("by its whole ID: %v", err)
	}
	if _, _, err := next.WithoutToken("t"); !errors.Is(err, ErrInvalid) {
		t.Errorf("by what many begin with: %v", err)
	}
	if left, id, err := next.WithoutToken("mo"); err != nil || id != "more" || len(left.Tokens) != MaxTokens-1 || len(next.Tokens) != MaxTokens {
		t.Errorf("by its beginning: %q, %v", id, err)
	}
}
