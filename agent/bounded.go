package agent

import (
	"errors"
	"fmt"
	"strings"
	"text/template"
)

// A template is the user's, and an agent is not to be filled up by one: neither by
// what it writes, nor by what it makes on the way. Each part of it runs once at most
// (cluster.ParseTemplate), so it is enough that the functions which can make a text
// longer than what they are given are bounded, each text and all of them together.

var (
	// errTooLong is the error of a template that makes too much.
	errTooLong = errors.New("the result of a template is too long")
	// errTooMuch is the error of a template whose functions have made enough.
	errTooMuch = errors.New("a template does too much")
)

// workPerByte is how many bytes a template's functions may make for each that it may write.
const workPerByte = 4

// budget is how many bytes a template's functions may still make.
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

// maxWidth is the largest width that package fmt pads to.
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
