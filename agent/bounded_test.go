package agent

import (
	"strings"
	"testing"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

// expandSecret fills in a secret's template beside which there is a config of 400 KiB.
func expandSecret(text string) (string, error) {
	file := func(name string) *swarm.SecretReferenceFileTarget {
		return &swarm.SecretReferenceFileTarget{Name: name}
	}
	config := swarm.ConfigReferenceFileTarget(*file("big"))
	a := Assignment{
		Task: &cluster.Task{ID: "t1", ServiceID: "s1", Slot: 1},
		Revision: &cluster.Revision{ServiceName: "web", ServiceLabels: map[string]string{"long": strings.Repeat("x", 100<<10)}, Spec: swarm.TaskSpec{ContainerSpec: &swarm.ContainerSpec{
			Env:     []string{"MODE=fast"},
			Secrets: []*swarm.SecretReference{{SecretID: "x1", SecretName: "key", File: file("key")}},
			Configs: []*swarm.ConfigReference{{ConfigID: "x2", ConfigName: "big", File: &config}},
		}}},
		Secrets: map[string]*cluster.Secret{"x1": {}},
		Configs: map[string]*cluster.Config{"x2": {}},
	}
	a.Secrets["x1"].Spec.Data, a.Secrets["x1"].Spec.Templating = []byte(text), &swarm.Driver{Name: "golang"}
	a.Configs["x2"].Spec.Data = []byte(strings.Repeat("y", 400<<10))
	files, err := a.Files()
	if err != nil {
		return "", err
	}
	return string(files[0].Data), nil
}

// TestTemplate_OfASecretIsNotShown: the line is told, and nothing of what is there.
func TestTemplate_OfASecretIsNotShown(t *testing.T) {
	for _, text := range []string{"a\n{{canary}}", "a\n{{.Canary}}", `a` + "\n" + `{{index .Service.Name "canary"}}`} {
		_, err := expandSecret(text)
		if err == nil || err.Error() != "expand template of secret key: line 2: more isn't said, since that may quote it" {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestTemplate_IsReadAsTheAPIReadsIt: what the API lets pass can be read here.
func TestTemplate_IsReadAsTheAPIReadsIt(t *testing.T) {
	known := (&budget{}).boundedFunctions(1)
	for name := range known {
		if fault := cluster.CheckTemplate("{{" + name + "}}"); fault != nil {
			t.Errorf("the API knows no %s: %v", name, fault)
		}
	}
	for _, name := range cluster.TemplateFunctions {
		if known[name] == nil {
			t.Errorf("the API lets %s pass, which is not known here", name)
		}
	}
}

// TestFiles_StayWhereTheyBelong: a file's name can't lead out of the folder of secrets.
func TestFiles_StayWhereTheyBelong(t *testing.T) {
	for name, ok := range map[string]bool{"key": true, "/etc/key": true, "sub/key": true, "..key": true, "../../etc/passwd": false, "/run/../etc/passwd": false, "sub/..": false} {
		a := Assignment{
			Task: &cluster.Task{ID: "t1"}, Revision: &cluster.Revision{Spec: swarm.TaskSpec{ContainerSpec: &swarm.ContainerSpec{
				Secrets: []*swarm.SecretReference{{SecretID: "x1", SecretName: "key", File: &swarm.SecretReferenceFileTarget{Name: name}}},
			}}},
			Secrets: map[string]*cluster.Secret{"x1": {}},
		}
		if files, err := a.Files(); (err == nil) != ok {
			t.Errorf("%q is at %+v, %v", name, files, err)
		}
	}
}

// TestTemplate_RunsEachPartOnce: whatever could run it more often is refused, and what it is is said.
func TestTemplate_RunsEachPartOnce(t *testing.T) {
	for text, what := range map[string]string{
		`{{range 9223372036854775807}}{{end}}`:                                    "line 1: range",
		`{{range $k, $v := .Service.Labels}}{{$k}}{{else}}none{{end}}`:            "line 1: range",
		"\n{{with .Task}}{{else with .Node}}x{{else}}\n{{range 1}}{{end}}{{end}}": "line 3: range",
		`{{define "a"}}{{template "a"}}{{end}}{{template "a"}}`:                   "define and block",
		`{{define "a"}}{{end}}`:                                                   "define and block",
		`{{block "a" .}}x{{end}}`:                                                 "define and block",
		`{{template ""}}`:                                                         "line 1: template",
		`{{define ""}}{{template ""}}{{end}}`:                                     "line 1: template",
		`{{define ""}}{{range 5}}{{end}}{{end}}`:                                  "line 1: range",
		strings.Repeat("{{/**/}}", 10_001):                                        "it has more than 10000 actions",
	} {
		_, err := expandSecret(text)
		if err == nil || !strings.HasPrefix(err.Error(), "expand template of secret key: "+what) {
			t.Errorf("%.100q: %v", text, err)
		}
		if fault := cluster.CheckTemplate(text); fault == nil || !strings.HasPrefix(fault.Error(), what) {
			t.Errorf("the API: %.100q: %v", text, fault)
		}
	}
}

// TestTemplate_KnowsWhatSwarmDocuments: each placeholder and function of docker's pages.
func TestTemplate_KnowsWhatSwarmDocuments(t *testing.T) {
	for text, want := range map[string]string{
		`{{.Service.ID}} {{.Service.Name}}`:          "s1 web",
		`{{len (index .Service.Labels "long")}}`:     "102400",
		`{{.Task.ID}} {{.Task.Name}} {{.Task.Slot}}`: "t1 web.1.t1 1",
		`{{.Node.ID}}{{.Node.Hostname}}{{if .Node.Platform.OS}}x{{end}}{{with .Node.Platform.Architecture}}y{{end}}`: "xy",
		`{{env "MODE"}}{{env "NONE"}}`:                  "fast",
		`{{len (config "big")}}`:                        "409600",
		`{{.Service.Name | printf "%s-%s" .Task.Slot}}`: "1-web",
		`{{join "," "a" "b"}}`:                          "a,b",
		`{{if and (eq .Service.Name "web") (ne .Task.Slot "2") (lt 1 2) (not false)}}yes{{else}}no{{end}}`: "yes",
		`{{if eq .Task.Slot "2"}}2{{else if eq .Task.Slot "1"}}1{{end}}`:                                   "1",
		"a {{- /* comment */ -}} b":                                "ab",
		`{{slice .Service.Name 1 | print | html | js | urlquery}}`: "eb",
	} {
		if got, err := expandSecret(text); err != nil || got != want {
			t.Errorf("%s gives %q, %v; want %q", text, got, err, want)
		}
	}
}

func TestTemplate_IsBounded(t *testing.T) {
	for what, c := range map[string]struct {
		text string
		size int // 0 where it is refused for what it gives, negative for what it does
	}{
		"what fits":                   {`{{config "big"}}`, 400 << 10},
		"padding that fits":           {`{{printf "%100000d" 1}}`, 100000},
		"an argument of printf":       {`{{printf "%s-%s-%05.1f-%%" (config "big") .Service.Name 1.5}}`, 400<<10 + len("-web-001.5-%")},
		"all built-in functions":      {`{{print 1 "a"}}{{println 2}}{{html "<"}}{{js "'"}}{{urlquery " "}}{{join "," "a" "b"}}{{len "abc"}}`, len("1a2\n&lt;\\'+a,b3")},
		"written in two parts":        {`{{config "big"}}{{config "big"}}`, 0},
		"padded":                      {`{{printf "%1000000d" 1}}`, 0},
		"padded many times":           {strings.Repeat(`{{printf "%300000d" 1}}`, 1000), 0},
		"padded in one call":          {`{{printf "` + strings.Repeat("%99999d", 1000) + `"}}`, 0},
		"padded by an argument":       {`{{printf "` + strings.Repeat("%[1]*d", 10000) + `" 900000 1}}`, 0},
		"padded by precision":         {`{{printf "%.999999d" 1}}`, 0},
		"one argument many times":     {`{{printf "` + strings.Repeat("%[1]s", 10000) + `" (config "big")}}`, 0},
		"doubled without being shown": {`{{$x := config "big"}}` + strings.Repeat(`{{$x = print $x $x}}`, 40), 0},
		"doubled by printf":           {`{{$x := "1234567890"}}` + strings.Repeat(`{{$x = printf "%s%s" $x $x}}`, 60), 0},
		"doubled by join":             {`{{$x := "1234567890"}}` + strings.Repeat(`{{$x = join $x $x $x}}`, 60), 0},
		"escaped again and again":     {`{{$x := "'"}}` + strings.Repeat(`{{$x = js $x}}`, 60), 0},
		"much that isn't shown":       {strings.Repeat(`{{$x := config "big"}}`, 100), -1},
		"a long pipeline":             {`{{print (config "big")` + strings.Repeat(" | print", 10000) + `}}`, -1},
		"decisions in decisions":      {strings.Repeat(`{{if 1}}`, 4000) + "x" + strings.Repeat(`{{end}}`, 4000), 1},
		"variables":                   {`{{$x := "a"}}{{with .Task}}{{$x = .ID}}{{end}}{{$x}}`, 2},
		"labels many times":           {`{{print ` + strings.Repeat(".Service.Labels ", 10000) + `}}`, 0},
	} {
		t.Run(what, func(t *testing.T) {
			got, err := expandSecret(c.text)
			switch {
			case c.size < 0 && (err == nil || err.Error() != "expand template of secret key: its functions make more than 2048000 bytes together"):
				t.Errorf("%d bytes, %v", len(got), err)
			case c.size == 0 && (err == nil || err.Error() != "expand template of secret key: it gives more than 511999 bytes"):
				t.Errorf("%d bytes, %v", len(got), err)
			case c.size > 0 && (err != nil || len(got) != c.size):
				t.Errorf("%d bytes instead of %d, %v", len(got), c.size, err)
			}
		})
	}
}
