package cluster

import (
	"fmt"
	"regexp"
	"strings"
	"text/template"
)

// DataFunctions are what templates in secrets and configs know beside TemplateFunctions.
var DataFunctions = []string{"env", "secret", "config"}

// TemplateFunctions are what all templates know beside Go's own.
var TemplateFunctions = []string{"join"}

const (
	// MaxActions is how many actions a template may have, and all of a service together: each may
	// stand in another one, and reading them takes memory for each.
	MaxActions = 10_000
	// mostReason bounds what is told of why a template doesn't work.
	mostReason = 200
)

// CheckTemplate tells why a template can't be read; nil when it can, which doesn't mean that it
// can be filled in: what with is known where the task is.
func CheckTemplate(text string, functions ...string) *TemplateFault {
	if !strings.Contains(text, "{{") {
		return nil
	}
	if strings.Count(text, "{{") > MaxActions {
		return &TemplateFault{What: fmt.Sprintf("it has more than %d actions", MaxActions)}
	}
	known := template.FuncMap{}
	for _, name := range append(functions, TemplateFunctions...) {
		known[name] = func(...any) string { return "" }
	}
	if _, err := template.New("").Funcs(known).Parse(text); err != nil {
		return FaultOf(err)
	}
	return nil
}

// TemplateFault is what is wrong with a template.
type TemplateFault struct {
	Line string // empty when it is about all of it
	// What may have a part of the template's text in it.
	What string
}

func (f *TemplateFault) Error() string {
	if f.Line == "" {
		return f.What
	}
	return "line " + f.Line + ": " + f.What
}

// Hide leaves out what may have a part of the text in it, which is secret.
func (f *TemplateFault) Hide() *TemplateFault {
	return &TemplateFault{Line: f.Line, What: "it is not valid"}
}

// templatePlace is what package template's errors begin with.
var templatePlace = regexp.MustCompile(`^template: :(\d+)(?::\d+)?: (?:executing "" at )?`)

// FaultOf reads an error of package template about a template without a name.
func FaultOf(err error) *TemplateFault {
	f := &TemplateFault{What: err.Error()}
	if place := templatePlace.FindStringSubmatch(f.What); place != nil {
		f.Line, f.What = place[1], f.What[len(place[0]):]
	}
	f.What, _, _ = strings.Cut(f.What, " in type ") // Go's own, which tells users nothing
	if len(f.What) > mostReason {
		f.What = strings.ToValidUTF8(f.What[:mostReason], "") + "…"
	}
	return f
}
