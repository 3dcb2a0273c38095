package console

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"net/netip"
	"strings"
	"time"

	"skep/cluster"
)

const (
	// leastToken is how many characters a token has at least.
	leastToken = 16
	// maxTokens is how many a file may have.
	maxTokens = 1000
)

// Access is what a browser may do, and by whose leave.
type Access struct {
	// Grant is GrantRead or GrantWrite.
	Grant string
	// Who is the name that the token has; empty for a code, and for a token without one.
	Who string
	// key is of the token; zero for a code.
	key [sha256.Size]byte
}

// Tokens let browsers in, for as long as they are in the file that lists them.
type Tokens []Access

// ParseTokens reads lines of "read TOKEN" or "write TOKEN", each with a name behind it if one is to be known by it.
// Empty lines and those that begin with # are nothing. What it refuses it says without the tokens.
func ParseTokens(text []byte) (Tokens, error) {
	var tokens Tokens
	for i, line := range bytes.Split(text, []byte("\n")) {
		words := strings.Fields(string(line))
		if len(words) == 0 || strings.HasPrefix(words[0], "#") {
			continue
		}
		if len(words) < 2 || len(words) > 3 || words[0] != GrantRead && words[0] != GrantWrite {
			return nil, cluster.Errorf(cluster.ErrInvalid, "line %d: want \"read TOKEN\" or \"write TOKEN\", and a name of one word if you like", i+1)
		}
		if len(words[1]) < leastToken {
			return nil, cluster.Errorf(cluster.ErrInvalid, "line %d: the token has %d characters: want at least %d", i+1, len(words[1]), leastToken)
		}
		one := Access{Grant: words[0], key: sha256.Sum256([]byte(words[1]))}
		if len(words) == 3 {
			one.Who = words[2]
		}
		if tokens = append(tokens, one); len(tokens) > maxTokens {
			return nil, cluster.Errorf(cluster.ErrInvalid, "there are more than %d tokens", maxTokens)
		}
	}
	return tokens, nil
}

// Find says what a token is for; ok is false when it isn't one of them.
func (t Tokens) Find(token string) (access Access, ok bool) {
	key := sha256.Sum256([]byte(token))
	for _, one := range t {
		if subtle.ConstantTimeCompare(one.key[:], key[:]) == 1 {
			access, ok = one, true
		}
	}
	return access, ok
}

// Hold tells whether what a session began with is still so.
func (t Tokens) Hold(a Access) bool {
	for _, one := range t {
		if one == a {
			return true
		}
	}
	return a.key == [sha256.Size]byte{} // A code's session is for its time.
}

// maxTries is how many wrong tokens an address may show in a minute, and maxTriers how many addresses are told apart;
// beyond that nobody new may try.
const (
	maxTries  = 5
	maxTriers = 10_000
)

// tries counts wrong tokens. The zero value is ready.
type tries struct {
	since time.Time
	taken map[netip.Prefix]int
}

// take notes a try from there before it is made, so that many at once are none too many; false has it wait.
func (t *tries) take(from netip.Prefix, now time.Time) bool {
	if now.Sub(t.since) >= time.Minute {
		t.since, t.taken = now, map[netip.Prefix]int{}
	}
	n, known := t.taken[from]
	if n >= maxTries || !known && len(t.taken) >= maxTriers {
		return false
	}
	t.taken[from]++
	return true
}

// giveBack is for a token that was right.
func (t *tries) giveBack(from netip.Prefix) {
	if t.taken[from] > 0 {
		t.taken[from]--
	}
}

// sourceOf is where a request comes from: the address, of IPv6 the network of 64 bits, in which one host may have any.
func sourceOf(remoteAddr string) netip.Prefix {
	at, err := netip.ParseAddrPort(remoteAddr)
	if err != nil {
		return netip.Prefix{}
	}
	addr, bits := at.Addr().Unmap().WithZone(""), 32
	if addr.Is6() {
		bits = 64
	}
	return netip.PrefixFrom(addr, bits).Masked()
}
