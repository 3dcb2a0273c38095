package cluster

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/docker/docker/api/types/swarm"
)

// LimitedToken is a join token beside the two of Swarm's: it lets in only so many nodes, until a time, and
// gives them labels. What it consists of was told once, to who made it; the cluster knows its digest.
type LimitedToken struct {
	ID   string         `cbor:"1,keyasint"`
	Role swarm.NodeRole `cbor:"2,keyasint"`
	// Labels are those of the nodes that join by it. No node can give itself any.
	Labels map[string]string `cbor:"3,keyasint,omitempty"`
	// Uses is how many nodes it lets in, and Used how many these were until now.
	Uses uint32 `cbor:"4,keyasint"`
	Used uint32 `cbor:"5,keyasint,omitempty"`
	// Until is when it ends, by the database's time.
	Until Time `cbor:"6,keyasint"`
	// Digest is the SHA-256 of the token's text. Its secret has 129 bits, so nobody finds it by trying.
	Digest [sha256.Size]byte `cbor:"7,keyasint"`
	// By is who made it, and CreatedAt when.
	By        string `cbor:"8,keyasint,omitempty"`
	CreatedAt Time   `cbor:"9,keyasint"`
}

const (
	// MaxTokens is how many limited tokens there may be: all are in the cluster's record.
	MaxTokens = 100
	// MaxTokenUses, MaxTokenFor and MaxTokenLabels bound one of them.
	MaxTokenUses   = 10_000
	MaxTokenFor    = 366 * 24 * time.Hour
	MaxTokenLabels = 32
)

// TokenRequest makes a limited token: POST /skep/v1/tokens.
type TokenRequest struct {
	Role   string
	Labels map[string]string
	Uses   int
	// For is how long it is good, as in "1h30m".
	For string
}

// TokenShown is what the API tells of a limited token.
type TokenShown struct {
	ID         string
	Role       swarm.NodeRole
	Labels     map[string]string
	Uses, Used int
	Until      time.Time
	CreatedAt  time.Time
	By         string `json:",omitempty"`
	// State is "good", "used up" or "expired".
	State string
	// Token is told once, to who made it.
	Token string `json:",omitempty"`
}

// NewLimitedToken is what is kept of a token with that text.
func NewLimitedToken(id string, token JoinToken, r TokenRequest, by string, now time.Time) (LimitedToken, error) {
	length, err := time.ParseDuration(r.For)
	role := swarm.NodeRole(r.Role)
	switch {
	case role != swarm.NodeRoleWorker && role != swarm.NodeRoleManager:
		return LimitedToken{}, Errorf(ErrInvalid, "make join token: invalid role %q: want worker or manager", r.Role)
	case err != nil || length <= 0 || length > MaxTokenFor:
		return LimitedToken{}, Errorf(ErrInvalid, "make join token: it can't be good for %q: want a time such as 1h, at most %v", r.For, MaxTokenFor)
	case r.Uses < 1 || r.Uses > MaxTokenUses:
		return LimitedToken{}, Errorf(ErrInvalid, "make join token: %d nodes: it lets in 1 to %d", r.Uses, MaxTokenUses)
	case len(r.Labels) > MaxTokenLabels:
		return LimitedToken{}, Errorf(ErrInvalid, "make join token: %d labels are more than %d", len(r.Labels), MaxTokenLabels)
	case r.Labels[LabelDrainUntil.Name] != "":
		return LimitedToken{}, Errorf(ErrInvalid, "make join token: label %s is for nodes that are drained", LabelDrainUntil.Name)
	}
	for name := range r.Labels {
		if name == "" || strings.ContainsAny(name, "= ") {
			return LimitedToken{}, Errorf(ErrInvalid, "make join token: %q is no name of a label", name)
		}
	}
	if err := CheckLabels(OnNode, r.Labels); err != nil {
		return LimitedToken{}, fmt.Errorf("make join token: %w", err)
	}
	return LimitedToken{
		ID: id, Role: role, Labels: maps.Clone(r.Labels), Uses: uint32(r.Uses), Until: At(now.Add(length)),
		Digest: sha256.Sum256([]byte(token.String())), By: by, CreatedAt: At(now),
	}, nil
}

// Is tells whether a text is the token.
func (t LimitedToken) Is(text string) bool {
	digest := sha256.Sum256([]byte(text))
	return subtle.ConstantTimeCompare(digest[:], t.Digest[:]) == 1
}

// Good returns nil while the token lets a node in, and otherwise why it doesn't.
func (t LimitedToken) Good(now time.Time) error {
	switch t.state(now) {
	case tokenExpired:
		return Errorf(ErrDenied, "check join token: token %s was good until %s: make another one (\"skep token create\")", t.ID, t.Until.Std().Format(time.RFC3339))
	case tokenUsedUp:
		return Errorf(ErrDenied, "check join token: token %s was for %d nodes, and all have joined: make another one (\"skep token create\")", t.ID, t.Uses)
	}
	return nil
}

// What a token may be.
const (
	tokenGood    = "good"
	tokenUsedUp  = "used up"
	tokenExpired = "expired"
)

func (t LimitedToken) state(now time.Time) string {
	switch {
	case !now.Before(t.Until.Std()):
		return tokenExpired
	case t.Used >= t.Uses:
		return tokenUsedUp
	}
	return tokenGood
}

// Shown is what may be told of it.
func (t LimitedToken) Shown(now time.Time) TokenShown {
	labels := maps.Clone(t.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	return TokenShown{
		ID: t.ID, Role: t.Role, Labels: labels, Uses: int(t.Uses), Used: int(t.Used),
		Until: t.Until.Std(), CreatedAt: t.CreatedAt.Std(), By: t.By, State: t.state(now),
	}
}

// FindToken is the limited token with that text; nil when there is none.
func (c *Cluster) FindToken(text string) *LimitedToken {
	for i := range c.Tokens {
		if c.Tokens[i].Is(text) {
			return &c.Tokens[i]
		}
	}
	return nil
}

// WithToken is the record with one more token. When there are too many, the oldest one that lets nobody in
// any more goes.
func (c *Cluster) WithToken(t LimitedToken, now time.Time) (*Cluster, error) {
	next := *c
	next.Tokens = slices.Clone(c.Tokens)
	if len(next.Tokens) >= MaxTokens {
		over := slices.IndexFunc(next.Tokens, func(t LimitedToken) bool { return t.Good(now) != nil })
		if over < 0 {
			return nil, Errorf(ErrPrecondition, "make join token: there are %d that are good: remove some (\"skep token rm\")", len(next.Tokens))
		}
		next.Tokens = slices.Delete(next.Tokens, over, over+1)
	}
	next.Tokens = append(next.Tokens, t)
	return &next, nil
}

// WithoutToken is the record without the token of an ID, or of the beginning of one.
func (c *Cluster) WithoutToken(ref string) (*Cluster, string, error) {
	var found []string
	for _, t := range c.Tokens {
		if t.ID == ref {
			found = []string{t.ID}
			break
		}
		if ref != "" && strings.HasPrefix(t.ID, ref) {
			found = append(found, t.ID)
		}
	}
	switch len(found) {
	case 0:
		return nil, "", Errorf(ErrNotFound, "join token %s not found", ref)
	case 1:
	default:
		return nil, "", Errorf(ErrInvalid, "join token %s is ambiguous (%d matches found)", ref, len(found))
	}
	next := *c
	next.Tokens = slices.DeleteFunc(slices.Clone(c.Tokens), func(t LimitedToken) bool { return t.ID == found[0] })
	return &next, found[0], nil
}

// UseToken is the record with the token of that text used once more, for the node that is put in the same
// transaction. It fails when the token isn't good any more.
func (c *Cluster) UseToken(text string, now time.Time) (*Cluster, error) {
	next := *c
	next.Tokens = slices.Clone(c.Tokens)
	t := next.FindToken(text)
	if t == nil {
		return nil, ErrToken
	}
	if err := t.Good(now); err != nil {
		return nil, err
	}
	t.Used++
	return &next, nil
}

// ErrToken is the refusal of a token that the cluster doesn't know.
var ErrToken = Errorf(ErrDenied, "check join token: a valid join token is necessary to join this cluster")
