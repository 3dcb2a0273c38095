package cluster

import (
	"io"
	"strings"

	"github.com/docker/docker/api/types/swarm"
)

// Identity is who a certificate says its holder is: CN, OU and O.
type Identity struct {
	NodeID    string
	Role      swarm.NodeRole
	ClusterID string
}

const (
	tokenPrefix  = "SWMTKN-1-"
	digestLength = 50
	secretLength = 25
)

// JoinToken lets a node into the cluster. Digest lets the joiner recognise the
// root CA before it trusts anybody; Secret lets the cluster recognise the joiner.
type JoinToken struct {
	// Digest is the SHA-256 of the root certificate (DER): 50 characters of base 36.
	Digest string
	// Secret is 25 characters of base 36.
	Secret string
}

// NewJoinToken makes a token with a fresh secret.
func NewJoinToken(digest string, random io.Reader) JoinToken {
	return JoinToken{Digest: digest, Secret: NewID(random)}
}

// ParseJoinToken reads a token in Swarm's form, SWMTKN-1-<digest>-<secret>.
// Errors never contain the token.
func ParseJoinToken(text string) (JoinToken, error) {
	rest, ok := strings.CutPrefix(strings.TrimSpace(text), tokenPrefix)
	digest, secret, cut := strings.Cut(rest, "-")
	if !ok || !cut || len(digest) != digestLength || len(secret) != secretLength || !base36(digest) || !base36(secret) {
		return JoinToken{}, Errorf(ErrInvalid, "parse join token: invalid join token: want %s<%d characters>-<%d characters>", tokenPrefix, digestLength, secretLength)
	}
	return JoinToken{Digest: digest, Secret: secret}, nil
}

// String gives the token as users pass it on. It is a password: never log it.
func (t JoinToken) String() string { return tokenPrefix + t.Digest + "-" + t.Secret }

func base36(text string) bool {
	for _, c := range text {
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') {
			return false
		}
	}
	return true
}
