package agent

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"skep/cluster"
)

// slow is far more than a template may take, on a machine that does other things.
const slow = 5 * time.Second

// FuzzTemplate fills a template in, as a secret's and as an environment variable's:
// it gives less than it may, soon, or an error that doesn't show it.
func FuzzTemplate(f *testing.F) {
	for _, seed := range []string{
		`plain`, `{{.Service.Name}}-{{.Task.Slot}}@{{.Node.Hostname}}`, `{{config "big"}}`, `{{secret "key"}}`, `{{env "HOST"}}`, `{{index .Service.Labels "long" | len}}`,
		`{{printf "%s-%05.1f-%%" .Service.Name 1.5}}{{print 1 "a"}}{{println 2}}{{html "<"}}{{js "'"}}{{urlquery " "}}{{join "," "a" "b"}}`,
		`{{printf "%1000000d" 1}}`, `{{printf "%[1]*d" 900000 1}}`, `{{$x := config "big"}}{{$x = print $x $x}}`, `{{range $k, $v := .Service.Labels}}{{$k}}{{else}}none{{end}}`,
		`{{range 9223372036854775807}}{{end}}`, `{{range $i := 1000000}}{{if eq $i 3}}{{break}}{{end}}x{{end}}`,
		`{{define "a"}}{{template "a"}}{{end}}{{template "a"}}`,
		`{{define "a"}}{{if .}}{{template "a" slice . 1}}{{template "a" slice . 1}}{{end}}{{end}}{{template "a" "` + strings.Repeat("x", 40) + `"}}`,
		`{{with .Task}}{{.ID}}{{else with .Node}}{{.ID}}{{end}}{{/* comment */}}`, `{{spend 1}}`, `{{block "b" .}}x{{end}}`, `{{call .Service}}`, `{{`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 16<<10 {
			t.Skip("what is long shows nothing new")
		}
		late := time.AfterFunc(slow, func() { panic(fmt.Sprintf("%.100q isn't filled in yet", text)) })
		defer late.Stop()
		got, err := expandSecret(text)
		check(t, text, got, err, cluster.SecretLimit)
		if err != nil && len(text) > 8 && strings.Contains(err.Error(), text) {
			t.Fatalf("a secret is shown: %q: %v", text, err)
		}
		a := Assignment{Task: &cluster.Task{ID: "t1", ServiceID: "s1", Slot: 1}, Revision: &cluster.Revision{ServiceName: "web"}}
		x := NewTemplate(a)
		check(t, text, x.Expand("hostname", text), x.Err(), cluster.ConfigLimit)
	})
}

func check(t *testing.T, text, got string, err error, limit int) {
	switch {
	case err != nil && !errors.Is(err, cluster.ErrInvalid):
		t.Fatalf("%q: %v", text, err)
	case err == nil && len(got) >= limit:
		t.Fatalf("%q gives %d bytes", text, len(got))
	case err == nil && !strings.Contains(text, "{{") && got != text:
		t.Fatalf("%q became %q", text, got)
	}
}
