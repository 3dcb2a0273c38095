package ca

import (
	"errors"
	"io/fs"
	"path/filepath"
	"strconv"
	"testing"

	"skep/store/crashtest"
)

// TestCrash_TheKeyFileIsTheOldOneOrTheNew cuts the power at every step of writing it.
func TestCrash_TheKeyFileIsTheOldOneOrTheNew(t *testing.T) {
	trace := crashtest.Record(t, t.Name(), func(dir string) {
		root := newRoot(t, clusterID)
		file := KeyFile{Path: filepath.Join(dir, "keys")}
		crashtest.Ack("0")
		for n := 1; n <= 6; n++ {
			if err := file.Save(newKeys(t, root, node("n1", manager), n)); err != nil {
				panic(err)
			}
			crashtest.Ack(strconv.Itoa(n))
		}
	})
	count := trace.Each(t, func(c crashtest.Crash) {
		acked, err := strconv.Atoi(c.Acked[len(c.Acked)-1])
		if err != nil {
			t.Fatal(err)
		}
		keys, err := KeyFile{Path: filepath.Join(c.Dir, "keys")}.Load()
		if acked == 0 && errors.Is(err, fs.ErrNotExist) {
			return
		}
		if have := len(keys.DataKeys); err != nil || have != acked && have != acked+1 {
			t.Errorf("%v: %d keys (%v); want %d or one more", c, have, err, acked)
		}
	})
	t.Logf("%d states", count)
	if count < 100 {
		t.Errorf("only %d states: what was recorded?", count)
	}
}
