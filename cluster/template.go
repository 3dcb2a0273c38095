package cluster

import (
	"fmt"
	"regexp"
	"strings"
	"text/template"
	"text/template/parse"
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
	known := template.FuncMap{}
	for _, name := range append(functions, TemplateFunctions...) {
		known[name] = func(...any) string { return "" }
	}
	_, fault := ParseTemplate(text, known)
	return fault
}

// ParseTemplate reads a template. What is in it runs once at most, so that to fill it in ends
// after as many steps as it has nodes: loops, and templates that others call, are refused.
func ParseTemplate(text string, functions template.FuncMap) (*template.Template, *TemplateFault) {
	if strings.Count(text, "{{") > MaxActions {
		return nil, &TemplateFault{What: fmt.Sprintf("it has more than %d actions", MaxActions)}
	}
	parsed, err := template.New("").Option("missingkey=error").Funcs(functions).Parse(text)
	if err != nil {
		return nil, FaultOf(err)
	}
	for _, t := range parsed.Templates() {
		if t.Name() != "" {
			return nil, &TemplateFault{What: fmt.Sprintf(notAllowed, "define and block")}
		}
	}
	if parsed.Tree == nil {
		return parsed, nil
	}
	return parsed, refuseNodes(parsed.Tree, parsed.Root)
}

// notAllowed is why something isn't allowed in templates.
const notAllowed = "%s can't be used here: a template has values, functions, variables, if and with"

// refuseNodes finds a node of a template that isn't allowed below a list. Nodes in pipelines all are.
func refuseNodes(tree *parse.Tree, list *parse.ListNode) *TemplateFault {
	if list == nil {
		return nil
	}
	for _, node := range list.Nodes {
		var branch *parse.BranchNode
		switch n := node.(type) {
		case *parse.TextNode, *parse.CommentNode, *parse.ActionNode:
			continue
		case *parse.IfNode:
			branch = &n.BranchNode
		case *parse.WithNode:
			branch = &n.BranchNode
		default:
			what := "this"
			switch n.(type) {
			case *parse.RangeNode:
				what = "range"
			case *parse.TemplateNode:
				what = "template"
			}
			place, _ := tree.ErrorContext(node)
			_, line, _ := strings.Cut(place, ":")
			line, _, _ = strings.Cut(line, ":")
			return &TemplateFault{Line: line, What: fmt.Sprintf(notAllowed, what)}
		}
		for _, list := range []*parse.ListNode{branch.List, branch.ElseList} {
			if fault := refuseNodes(tree, list); fault != nil {
				return fault
			}
		}
	}
	return nil
}

// TemplateFault is what is wrong with a template.
type TemplateFault struct {
	Line string // empty when it is about all of it
	What string
	// Quotes says that What may have a part of the template's text in it.
	Quotes bool
}

func (f *TemplateFault) Error() string {
	if f.Line == "" {
		return f.What
	}
	return "line " + f.Line + ": " + f.What
}

// Hide leaves out what may have a part of the text in it, which is secret.
func (f *TemplateFault) Hide() *TemplateFault {
	if !f.Quotes {
		return f
	}
	return &TemplateFault{Line: f.Line, What: "more isn't said, since that may quote it"}
}

// templatePlace is what package template's errors begin with.
var templatePlace = regexp.MustCompile(`^template: :(\d+)(?::\d+)?: (?:executing "" at )?`)

// FaultOf reads an error of package template about a template without a name.
func FaultOf(err error) *TemplateFault {
	f := &TemplateFault{What: err.Error(), Quotes: true}
	if place := templatePlace.FindStringSubmatch(f.What); place != nil {
		f.Line, f.What = place[1], f.What[len(place[0]):]
	}
	f.What, _, _ = strings.Cut(f.What, " in type ") // Go's own, which tells users nothing
	if len(f.What) > mostReason {
		f.What = strings.ToValidUTF8(f.What[:mostReason], "") + "…"
	}
	return f
}
