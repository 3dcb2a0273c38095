package stack

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

// TestLoad_TakesAnythingAnywhere puts what doesn't belong there in the place of each thing in a
// file: it is refused, or loads and can be written and exported, but nothing panics.
func TestLoad_TakesAnythingAnywhere(t *testing.T) {
	odd := []any{nil, true, -1, 1.5, "x", "a:b=c", []any{}, []any{nil}, []any{"x", 1}, map[string]any{}, map[string]any{"x": nil}, map[string]any{"x": []any{1}}}
	loaded, refused, next := 0, 0, 0
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"testdata/swarm/forms.yml", "testdata/compose/shop.yml"} {
		t.Chdir(filepath.Join(here, filepath.Dir(name))) // It refers to others beside it.
		data, err := os.ReadFile(filepath.Base(name))
		if err != nil {
			t.Fatal(err)
		}
		var file map[string]any
		if err := yaml.Unmarshal(data, &file); err != nil {
			t.Fatal(err)
		}
		try := func(where string, value any) {
			text, err := yaml.Marshal(file)
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if p := recover(); p != nil {
					t.Errorf("%s: %s = %v: panic: %.200v", name, where, value, p)
				}
			}()
			s, err := Load(t.Context(), Source{Files: []string{"-"}, Stdin: bytes.NewReader(text), Name: "shop", Profiles: []string{"*"}, Environ: []string{"TAG=1", "TOKEN=x", "HOME=/"}})
			if err != nil {
				if refused++; strings.TrimSpace(err.Error()) == "" {
					t.Errorf("%s: %s = %v is refused without a reason", name, where, value)
				}
				return
			}
			loaded++
			if _, err := s.File(); err != nil {
				t.Errorf("%s: %s = %v: write: %v", name, where, value, err)
			}
			if _, err := Export("shop", asLive(s), false); err != nil {
				t.Errorf("%s: %s = %v: export: %v", name, where, value, err)
			}
		}
		var each func(where string, value any)
		each = func(where string, value any) {
			replace := func(where string, old any, set func(any)) {
				for range 3 { // Each place gets some of them, and all are used.
					v := odd[next%len(odd)]
					next++
					set(v)
					try(where, v)
				}
				set(old)
				each(where, old)
			}
			switch value := value.(type) {
			case map[string]any:
				for _, key := range slices.Sorted(maps.Keys(value)) {
					old := value[key]
					replace(where+"."+key, old, func(v any) { value[key] = v })
				}
			case []any:
				for i, old := range value {
					if i < 2 { // The others are like these.
						replace(where+"[]", old, func(v any) { value[i] = v })
					}
				}
			}
		}
		each("", file)
	}
	if t.Logf("%d loaded, %d refused", loaded, refused); loaded < 50 || refused < 200 {
		t.Error("that is too few to say anything")
	}
}
