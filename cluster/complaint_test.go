package cluster

import (
	"bytes"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestComplaint_OnceAndWhenItIsOver(t *testing.T) {
	var out bytes.Buffer
	now := time.Unix(0, 0)
	c := Complaint{Log: slog.New(slog.NewTextHandler(&out, nil)), Patience: time.Second, Now: func() time.Time { return now }}
	about := func(err error, after time.Duration) {
		now = now.Add(after)
		c.About(err, "it fails", "it works again", "node", "n1")
	}
	trouble := errors.New("cause")
	about(trouble, time.Second)
	about(nil, time.Second)
	if out.Len() > 0 {
		t.Errorf("said what was over at once: %s", &out)
	}
	for range 5 {
		about(trouble, time.Second)
	}
	about(nil, time.Second)
	about(nil, time.Second)
	said := out.String()
	if strings.Count(said, "\n") != 2 || !strings.Contains(said, `level=WARN msg="it fails" node=n1 err=cause`) || !strings.Contains(said, `level=INFO msg="it works again" node=n1`) {
		t.Errorf("said:\n%s", said)
	}
	c.Level = slog.LevelError
	about(trouble, time.Second)
	about(trouble, time.Second)
	if !strings.Contains(out.String(), `level=ERROR msg="it fails"`) {
		t.Errorf("said:\n%s", &out)
	}
}

func TestRepeats_LessAndLessOften(t *testing.T) {
	var r Repeats
	var said []Repeats
	for range 100 {
		if r.Again() {
			said = append(said, r)
		}
	}
	if want := []Repeats{1, 2, 4, 8, 16, 32, 64}; !slices.Equal(said, want) || r != 100 {
		t.Errorf("said at %d of %d, want %d of 100", said, r, want)
	}
}
