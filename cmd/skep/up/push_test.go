package up

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
)

func TestShared_CountsWhatIsBelow(t *testing.T) {
	for _, c := range []struct {
		there [][]string
		want  int
	}{
		{nil, 0},
		{[][]string{{"a"}}, 1},
		{[][]string{{"b", "c"}}, 0}, // On other layers they are others.
		{[][]string{{"x"}, {"a", "b", "d"}, {"a"}}, 2},
		{[][]string{{"a", "b", "c", "d"}}, 3},
	} {
		if got := shared([]string{"a", "b", "c"}, c.there); got != c.want {
			t.Errorf("%v: %d, want %d", c.there, got, c.want)
		}
	}
}

// saved is an image of two layers, as an engine saves it.
func saved(t *testing.T) *Saved {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, f := range [][2]string{
		{"config.json", "{}"}, {"one/layer.tar", strings.Repeat("1", 5000)}, {"two/layer.tar", strings.Repeat("2", 5000)},
		{"manifest.json", `[{"Config":"config.json","RepoTags":["app:1"],"Layers":["one/layer.tar","two/layer.tar"]}]`},
	} {
		if err := errors.Join(w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: f[0], Mode: 0o644, Size: int64(len(f[1]))}), write(w, f[1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	s := &Saved{Ref: "app:1", ID: "sha256:app", Layers: []string{"one", "two"}, File: bytes.NewReader(out.Bytes()), Size: int64(out.Len())}
	if err := s.Read(); err != nil {
		t.Fatal(err)
	}
	return s
}

func write(w io.Writer, text string) error { _, err := io.WriteString(w, text); return err }

// engines are those of machines: each holds something, and some want all layers.
type engines struct {
	mu   sync.Mutex // guards the fields below
	held map[string]Held
	// whole are those that take no image without layers that they have.
	whole map[string]bool
	got   map[string][][]string
}

func (e *engines) Connect(context.Context, string, bool) (Hello, error) { return Hello{}, nil }

func (e *engines) Run(_ context.Context, host string, o Order) error {
	if o.Args[1] == "image" {
		return json.NewEncoder(o.Out).Encode(e.held[host])
	}
	var names []string
	for files := tar.NewReader(o.In); ; {
		head, err := files.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		names = append(names, head.Name)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.got[host] = append(e.got[host], names)
	if e.whole[host] && !slices.Contains(names, "one/layer.tar") {
		return failure{"open one/layer.tar: no such file or directory", false}
	}
	return nil
}

func TestPush_SendsWhatIsMissing(t *testing.T) {
	e := &engines{
		held: map[string]Held{
			"empty": {}, "base": {Layers: [][]string{{"one"}, {"other"}}}, "has": {ID: "sha256:app"}, "strict": {Layers: [][]string{{"one"}}},
		},
		whole: map[string]bool{"strict": true}, got: map[string][][]string{},
	}
	var mu sync.Mutex
	said := map[string]string{}
	u := &Up{Runner: e, Say: func(host, words string) {
		mu.Lock()
		defer mu.Unlock()
		said[host] = words
	}}
	hosts := []string{"base", "empty", "has", "strict"}
	if err := u.Connect(t.Context(), hosts); err != nil {
		t.Fatal(err)
	}
	if err := u.Push(t.Context(), hosts, saved(t)); err != nil {
		t.Fatal(err)
	}
	all, thin := "config.json one/layer.tar two/layer.tar manifest.json", "config.json two/layer.tar manifest.json"
	for host, want := range map[string][]string{"empty": {all}, "base": {thin}, "has": nil, "strict": {thin, all}} {
		var got []string
		for _, names := range e.got[host] {
			got = append(got, strings.Join(names, " "))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s got %q, want %q", host, got, want)
		}
	}
	if !strings.Contains(said["base"], "1 of 2 layers") || said["has"] != "has it" {
		t.Errorf("%v", said)
	}
}

func TestSaved_MustBeWhole(t *testing.T) {
	s := saved(t)
	s.Size = 6000
	if err := s.Read(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error(err)
	}
}
