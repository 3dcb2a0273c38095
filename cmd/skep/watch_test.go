package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"
)

func TestWatch(t *testing.T) {
	for _, terminal := range []bool{false, true} {
		ctx, cancel := context.WithCancel(context.Background())
		var out bytes.Buffer
		n := 0
		err := watch(ctx, &out, terminal, time.Millisecond, func(_ context.Context, w io.Writer) error {
			n++
			fmt.Fprint(w, "look ", n)
			switch n {
			case 2:
				return errors.New("no leader")
			case 4:
				cancel()
			}
			return nil
		})
		want := "look 1\nno leader\n\nlook 3\n"
		if terminal {
			want = clearScreen + "look 1" + clearScreen + "no leader\n" + clearScreen + "look 3"
		}
		if !errors.Is(err, context.Canceled) || out.String() != want {
			t.Errorf("%v, %q, want %q", err, out.String(), want)
		}
	}
	if err := watch(context.Background(), brokenPipe{}, true, time.Millisecond, func(context.Context, io.Writer) error { return nil }); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("where nobody reads: %v", err)
	}
	if r := skep(t, nil, "cluster", "status", "--watch", "--json"); r.status != 1 {
		t.Errorf("%+v", r)
	}
}

type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }
