package scenario

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Measure is something that is measured from a step on, and what it should be.
type Measure struct {
	// Name is one of Measures.
	Name string
	// Median and Worst bound the values over all rounds, in milliseconds or as a number
	// of things; nil bounds nothing.
	Median, Worst *float64
}

// Meaning is what a measure measures.
type Meaning struct {
	Name, Does string
	// Counts is set when values are numbers of things and not milliseconds.
	Counts bool
}

// Meanings are all measures.
var Meanings = []Meaning{
	{"next-write", "next accepted write", false},
	{"write-gap", "longest gap between accepted writes", false},
	{"calm-gap", "the same in the second before", false},
	{"down", "marked down", false},
	{"whole", "services whole again", false},
	{"even", "tasks as evenly spread as at the beginning", false},
	{"moved", "services whole again, less the containers' start", false},
	{"ready", "all nodes ready", false},
	{"voting", "all managers voting", false},
	{"update", "update completed", false},
	{"rollback", "rollback completed", false},
	{"refused", "requests failed at managers that were there", true},
	{"noticed", "agents on other managers that notice", true},
	{"failed", "requests of users that failed", true},
	{"failing", "until the last request that failed was sent", false},
	{"carries", "requests of users answered through it", false},
}

// Meaning returns what the measure measures.
func (m Measure) Meaning() Meaning {
	i := slices.IndexFunc(Meanings, func(each Meaning) bool { return each.Name == m.Name })
	return Meanings[i] // parseMeasure lets no other through
}

// Bound is the bound in words, or "".
func (m Measure) Bound() string {
	var parts []string
	say := func(what string, bound *float64) {
		switch {
		case bound == nil:
		case m.Meaning().Counts:
			parts = append(parts, fmt.Sprintf("%s %v", what, *bound))
		default:
			parts = append(parts, what+" "+Millis(*bound))
		}
	}
	if m.Median == nil && m.Worst != nil && *m.Worst == 0 {
		return "none"
	}
	say("median", m.Median)
	say("worst", m.Worst)
	return strings.Join(parts, ", ")
}

// Millis shows milliseconds alike in all tables.
func Millis(ms float64) string {
	if ms >= 10_000 {
		return fmt.Sprintf("%.1f s", ms/1000)
	}
	if ms >= 1000 {
		return fmt.Sprintf("%.2f s", ms/1000)
	}
	return fmt.Sprintf("%.0f ms", ms)
}

const boundForm = `"shown", "none", or bounds such as "median 350ms, worst 800ms" (numbers for what is counted)`

// parseMeasure reads one line of a measure block.
func parseMeasure(name, bound string) (Measure, error) {
	m := Measure{Name: name}
	var names []string
	for _, each := range Meanings {
		names = append(names, each.Name)
	}
	if !slices.Contains(names, name) {
		return m, fmt.Errorf("%q is no measure: want one of %s", name, strings.Join(names, ", "))
	}
	wrong := fmt.Errorf("%q bounds nothing: want %s", bound, boundForm)
	switch bound {
	case "shown":
		return m, nil
	case "none":
		if !m.Meaning().Counts {
			return m, wrong
		}
		zero := 0.0
		m.Worst = &zero
		return m, nil
	}
	for part := range strings.SplitSeq(bound, ",") {
		words := strings.Fields(part)
		if len(words) != 2 {
			return m, wrong
		}
		var value float64
		if m.Meaning().Counts {
			n, err := strconv.ParseUint(words[1], 10, 31)
			if err != nil {
				return m, wrong
			}
			value = float64(n)
		} else {
			d, err := time.ParseDuration(words[1])
			if err != nil || d <= 0 {
				return m, wrong
			}
			value = float64(d) / float64(time.Millisecond)
		}
		switch {
		case words[0] == "median" && m.Median == nil:
			m.Median = &value
		case words[0] == "worst" && m.Worst == nil:
			m.Worst = &value
		default:
			return m, wrong
		}
	}
	return m, nil
}
