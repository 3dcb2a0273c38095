package cluster

import (
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestUnlockKey_TellsASlipFromAKey(t *testing.T) {
	key := NewUnlockKey(rand.Reader)
	text := key.Text()
	if got, err := ParseUnlockKey("  " + text + "\n"); err != nil || got != key {
		t.Fatalf("%v", err)
	}
	if len(text) != len("SWMKEY-1-")+48 || !strings.HasPrefix(text, "SWMKEY-1-") {
		t.Errorf("a key of %d characters", len(text))
	}
	refused := func(bad string) {
		t.Helper()
		_, err := ParseUnlockKey(bad)
		if !errors.Is(err, ErrInvalid) {
			t.Fatalf("a wrong text passes: %v", err)
		}
		if strings.Contains(err.Error(), text[12:30]) {
			t.Fatal("the error shows the key")
		}
	}
	for i := range text {
		for _, c := range []byte("Az9+/ -") {
			if text[i] != c {
				refused(text[:i] + string(c) + text[i+1:])
			}
		}
		refused(text[:i])
		refused(text[:i] + text[i+1:])
	}
	refused(text + "A")
	refused(UnlockKey{}.Text())
	refused("SWMKEY-1-" + strings.Repeat("A", 48))
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%x"} {
		if got := fmt.Sprintf(format, key); strings.Contains(got, text[12:30]) || strings.Contains(got, fmt.Sprintf("%x", key[:8])) {
			t.Errorf("%s shows the key", format)
		}
	}
}
