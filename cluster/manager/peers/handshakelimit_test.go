package peers

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestHandshakeLimit_FewHandshakesAtOnceWithEachManager(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var all handshakeLimit
		var given []func()
		for range maxHandshakes {
			done, err := all.acquire(t.Context(), "a")
			if err != nil {
				t.Fatal(err)
			}
			given = append(given, done)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := all.acquire(ctx, "a"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("one too many: %v", err)
		}
		other, err := all.acquire(t.Context(), "b")
		if err != nil {
			t.Errorf("another manager: %v", err)
		}
		time.AfterFunc(time.Minute, given[0])
		next, err := all.acquire(t.Context(), "a")
		if err != nil {
			t.Errorf("when one is done: %v", err)
		}
		for _, done := range append(given[1:], next, other) {
			done()
		}
		if n := len(all.addrs); n != 0 {
			t.Errorf("%d addresses are still counted", n)
		}
	})
}
