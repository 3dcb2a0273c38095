package console

import (
	"io/fs"
	"regexp"
	"strings"
	"testing"
)

// TestPages_AreForEverybody reads all pages as those have to who don't see them, or have no mouse.
func TestPages_AreForEverybody(t *testing.T) {
	b := shop(t)
	inMap := regexp.MustCompile(`<i class="s \w+"[^>]*>`)
	input := regexp.MustCompile(`<(input|select)\b[^>]*>`)
	drawn := regexp.MustCompile(`<svg\b[^>]*>`)
	for name, path := range shownPages {
		body := b.get(Root+path, GrantHeader, GrantWrite).Body.String()
		for part, n := range map[string]int{
			`<html lang="en">`: 1, " · shop.example.org</title>": 1, "<header>": 1, `<nav aria-label="Pages">`: 1, `<main id="main">`: 1, "<h1>": 1, `href="#main">Skip`: 1, `aria-current="page"`: 1, `<noscript><meta http-equiv="refresh" content="10"></noscript>`: 1,
			`aria-live="polite"`: 1, `role="status"`: 1, // The latter is there only while the connection is lost.
		} {
			if got := strings.Count(body, part); got != n {
				t.Errorf("%s: %d times %s, want %d", name, got, part, n)
			}
		}
		if strings.Contains(body, "aria-live") != strings.Contains(body, `class="verdict" aria-live="polite"`) {
			t.Errorf("%s: more is announced than the health", name)
		}
		// A table has heads, but for those that are lists of sentences.
		for _, table := range strings.Split(body, "<table")[1:] {
			table, _, _ = strings.Cut(table, "</table>")
			if !strings.HasPrefix(table, ` class="events"`) && !strings.HasPrefix(table, ` class="bare"`) && !strings.Contains(table, "<th") {
				t.Errorf("%s: a table without heads: %.100s", name, table)
			}
		}
		// A shape has a word beside it, or has one as its name.
		for _, at := range inMap.FindAllStringIndex(body, -1) {
			tag, after := body[at[0]:at[1]], body[at[1]:min(at[1]+60, len(body))]
			after = strings.TrimSpace(strings.TrimPrefix(after, "</i>"))
			if after = strings.TrimPrefix(after, "<span>"); strings.Contains(tag, `role="img"`) != strings.Contains(tag, "title=") || !strings.Contains(tag, `role="img"`) && (after == "" || after[0] == '<') {
				t.Errorf("%s: a shape without a word: %s %s", name, tag, after)
			}
		}
		// What takes text has a label around it, or one as its name.
		for _, at := range input.FindAllStringIndex(body, -1) {
			tag, before := body[at[0]:at[1]], body[:at[0]]
			labelled := strings.LastIndex(before, "<label") > strings.LastIndex(before, "</label>")
			if !labelled && !strings.Contains(tag, "aria-label=") && !strings.Contains(tag, `type="hidden"`) {
				t.Errorf("%s: without a label: %s", name, tag)
			}
		}
		for _, tag := range drawn.FindAllString(body, -1) {
			if !strings.Contains(tag, `aria-hidden="true"`) && !strings.Contains(tag, `role="img"`) {
				t.Errorf("%s: a picture without a name: %s", name, tag)
			}
		}
	}
}

// TestStyle_ForEverybody: what has the focus is seen, and nothing moves by itself.
func TestStyle_ForEverybody(t *testing.T) {
	data, err := fs.ReadFile(files, "static/console.css")
	if err != nil {
		t.Fatal(err)
	}
	style := string(data)
	if !strings.Contains(style, ":focus-visible { outline: 2px solid") || strings.Contains(style, "outline: none") || strings.Contains(style, "outline: 0") {
		t.Error("what has the focus isn't seen")
	}
	for _, moves := range []string{"animation", "transition", "@keyframes", "scroll-behavior: smooth"} {
		if strings.Contains(style, moves) && !strings.Contains(style, "prefers-reduced-motion") {
			t.Errorf("%s: whoever wants nothing to move isn't asked", moves)
		}
	}
	if !strings.Contains(style, "@media print") || !strings.Contains(style, "color-scheme: light dark") {
		t.Error("it isn't for paper, or not for the dark")
	}
	shapes := map[string]string{}
	for _, rule := range regexp.MustCompile(`(?m)^\.s\.(\w+) \{ color: [^;]+;?(.*)\}$`).FindAllStringSubmatch(style, -1) {
		shape := strings.TrimSpace(rule[2])
		if other := shapes[shape]; other != "" {
			t.Errorf("%s and %s have the same shape", rule[1], other)
		}
		shapes[shape] = rule[1]
	}
	if len(shapes) != 8 {
		t.Errorf("there are the shapes %v", shapes)
	}
}
