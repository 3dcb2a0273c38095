package console

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"sync"
	"time"

	"skep/cluster"
)

const (
	// codeBytes is how much chance is in a code, and in a cookie.
	codeBytes = 32
	// CodeLife is for how long a code is good.
	CodeLife = 60 * time.Second
	// maxCodes is how many may be good at once: a person needs one.
	maxCodes = 64
)

// Codes are what `skep console` gets at the node's socket, and a browser then shows to have a
// session. Each is good once, and not for long; they are in this process's memory only.
type Codes struct {
	// Now is the clock, and Random where codes come from; both are required.
	Now    func() time.Time
	Random io.Reader

	mu   sync.Mutex // guards kept
	kept map[[sha256.Size]byte]code
}

type code struct {
	grant string
	ends  time.Time
}

// New makes a code for a session that may do what grant says.
func (c *Codes) New(grant string) (string, error) {
	text, err := randomText(c.Random)
	if err != nil {
		return "", err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.Now()
	for key, one := range c.kept {
		if !now.Before(one.ends) {
			delete(c.kept, key)
		}
	}
	if len(c.kept) >= maxCodes {
		return "", cluster.Errorf(cluster.ErrUnavailable, "%d codes for the console wait to be used: try again in a minute", maxCodes)
	}
	if c.kept == nil {
		c.kept = map[[sha256.Size]byte]code{}
	}
	c.kept[sha256.Sum256([]byte(text))] = code{grant, now.Add(CodeLife)}
	return text, nil
}

// Redeem says what a code is for, and ends it.
func (c *Codes) Redeem(text string) (grant string, err error) {
	key := sha256.Sum256([]byte(text))
	c.mu.Lock()
	defer c.mu.Unlock()
	one, ok := c.kept[key]
	delete(c.kept, key)
	if !ok || !c.Now().Before(one.ends) {
		return "", cluster.Errorf(cluster.ErrDenied, "this code was used already, or is older than %v", CodeLife)
	}
	return one.grant, nil
}

func randomText(random io.Reader) (string, error) {
	data := make([]byte, codeBytes)
	if _, err := io.ReadFull(random, data); err != nil {
		return "", fmt.Errorf("read randomness: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(data), nil
}
