package agent

import (
	"errors"
	"fmt"
	"strings"
	"text/template"
	"text/template/parse"
)

// A template is the user's, and an agent is not to be filled up by one: neither by
// what it writes, nor by what it makes on the way. So all functions that can make a
// text longer than what they are given are bounded. Nor is it to be kept busy: a loop
// can run for ever and write nothing, and templates can call each other in numbers
// that double with each word. So what a template does is counted in bytes: of its own
// text each time that a loop or a call runs it, and of what its functions make.

var (
	// errTooLong is the error of a template that makes too much.
	errTooLong = errors.New("the result of a template is too long")
	// errTooMuch is the error of a template that has done enough.
	errTooMuch = errors.New("a template does too much")
)

const (
	// workPerByte is how many bytes a template may go through for each that it may write.
	workPerByte = 4
	// loopCost and callCost are what a round of a loop and a call of a template cost
	// beside their text: the one takes time, and the other, when it is deep, memory.
	loopCost = 16
	callCost = 256
)

// budget is how many bytes a template may still go through.
type budget struct{ left int }

func (b *budget) spend(bytes int) error {
	if b.left -= bytes; b.left < 0 {
		return errTooMuch
	}
	return nil
}

// spending is a function whose text is spent.
func (b *budget) spending(function func(string) (string, error)) func(string) (string, error) {
	return func(argument string) (string, error) {
		text, err := function(argument)
		if err != nil {
			return "", err
		}
		return text, b.spend(len(text))
	}
}

// meter makes each template and each body of a loop in parsed spend what it costs,
// each time it begins. The function for it is not known to the text, which is parsed
// already.
func (b *budget) meter(parsed *template.Template) error {
	// It writes nothing, wherever it stands.
	parsed.Funcs(template.FuncMap{"spend": func(bytes int) (string, error) { return "", b.spend(bytes) }})
	for _, t := range parsed.Templates() {
		if t.Tree == nil || t.Root == nil {
			continue
		}
		size, err := meterLoops(t.Root)
		if err == nil {
			err = meterList(t.Root, size+callCost)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// meterLoops meters the loops below a list, and tells how long the list is without
// their bodies.
func meterLoops(list *parse.ListNode) (size int, err error) {
	if list == nil {
		return 0, nil
	}
	for _, node := range list.Nodes {
		var branch *parse.BranchNode
		switch n := node.(type) {
		case *parse.IfNode:
			branch = &n.BranchNode
		case *parse.WithNode:
			branch = &n.BranchNode
		case *parse.RangeNode:
			branch = &n.BranchNode
		default:
			size += len(node.String())
			continue
		}
		body, err := meterLoops(branch.List)
		if err != nil {
			return 0, err
		}
		otherwise, err := meterLoops(branch.ElseList)
		if err != nil {
			return 0, err
		}
		if node.Type() == parse.NodeRange {
			if err := meterList(branch.List, body+loopCost); err != nil {
				return 0, err
			}
			body = 0
		}
		size += len(branch.Pipe.String()) + body + otherwise
	}
	return size, nil
}

// meterList makes a list spend so many bytes before it begins.
func meterList(list *parse.ListNode, bytes int) error {
	text := fmt.Sprintf("{{spend %d}}", bytes)
	trees, err := parse.Parse("spend", text, "", "", map[string]any{"spend": true})
	if err != nil {
		return err
	}
	list.Nodes = append(trees["spend"].Root.Nodes, list.Nodes...)
	return nil
}

// boundedBuilder takes less than limit bytes.
type boundedBuilder struct {
	strings.Builder
	limit int
}

func (b *boundedBuilder) Write(p []byte) (int, error) {
	if b.Len()+len(p) >= b.limit {
		return 0, errTooLong
	}
	return b.Builder.Write(p)
}

// boundedFunctions are Swarm's join, and the built-in functions that make text, none
// of which makes limit bytes or more; and all of them spend what they make.
func (b *budget) boundedFunctions(limit int) template.FuncMap {
	bounded := func(size int, text func() string) (string, error) {
		if size >= limit {
			return "", errTooLong
		}
		made := text()
		if len(made) >= limit {
			return "", errTooLong
		}
		return made, b.spend(len(made))
	}
	printing := func(print func(...any) string) func(...any) (string, error) {
		return func(args ...any) (string, error) {
			return bounded(lengthOf(args, limit), func() string { return print(args...) })
		}
	}
	return template.FuncMap{
		"join": func(separator string, parts ...string) (string, error) {
			size := len(separator) * max(len(parts)-1, 0)
			for _, part := range parts {
				size += len(part)
			}
			return bounded(size, func() string { return strings.Join(parts, separator) })
		},
		"printf": func(format string, args ...any) (string, error) {
			size := lengthOf(args, limit)
			if strings.Contains(format, "[") {
				size *= max(strings.Count(format, "%"), 1) // It may use one many times.
			}
			return bounded(len(format)+padding(format)+size, func() string { return fmt.Sprintf(format, args...) })
		},
		"print": printing(fmt.Sprint), "println": printing(fmt.Sprintln),
		"html": printing(template.HTMLEscaper), "js": printing(template.JSEscaper), "urlquery": printing(template.URLQueryEscaper),
	}
}

// lengthOf is how long arguments are as text, about; it counts no further than limit.
func lengthOf(args []any, limit int) (n int) {
	for _, arg := range args {
		if n >= limit {
			break
		}
		if text, ok := arg.(string); ok {
			n += len(text)
		} else {
			n += len(fmt.Sprint(arg))
		}
	}
	return n
}

// maxWidth is the largest width that package fmt heeds.
const maxWidth = 1_000_000

// padding is how much the widths and precisions in a format may add at most. An
// asterisk takes its number from the arguments.
func padding(format string) (n int) {
	for i := 0; i < len(format); i++ {
		if format[i] != '%' {
			continue
		}
		number := 0
		for i++; i < len(format) && strings.IndexByte("+-# 0123456789.*[]", format[i]) >= 0; i++ {
			switch c := format[i]; {
			case c == '*':
				n += maxWidth
			case '0' <= c && c <= '9':
				number = min(10*number+int(c-'0'), maxWidth)
				continue
			}
			n, number = n+number, 0
		}
		n += number
	}
	return n
}
