package cmd

import (
	"cmp"
	"flag"
	"os"
	"slices"
	"strings"
	"testing"
)

var rewrite = flag.Bool("rewrite", false, "draw the README's packages anew")

// ground is imported by almost all packages, so the drawing has it once.
const ground = "cluster"

// The README draws who imports whom, each package above all that it imports.
// `go test ./cmd -run Drawing -rewrite` draws it anew.
func TestDrawing_ReadmeShowsTheImports(t *testing.T) {
	const begin, end = "<!-- packages -->\n```\n", "```\n<!-- /packages -->\n"
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(text), begin)
	drawn, after, ends := strings.Cut(rest, end)
	if !found || !ends {
		t.Fatalf("README.md has no %q … %q", begin, end)
	}
	want := draw(imports(t))
	if drawn == want {
		return
	}
	if !*rewrite {
		t.Fatalf("README.md draws\n%s\nand should\n%s\n(go test ./cmd -run Drawing -rewrite)", drawn, want)
	}
	if err := os.WriteFile("../README.md", []byte(before+begin+want+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

// imports is which packages of the project each one imports, tests aside, and packages that
// hold only tests.
func imports(t *testing.T) map[string][]string {
	of, imported := map[string][]string{}, map[string]bool{}
	all := list(t)
	for _, p := range all {
		for _, to := range own(p.Imports) {
			imported[to] = true
		}
	}
	for _, p := range all {
		name := strings.TrimPrefix(p.ImportPath, "skep/")
		if p.Name == "main" || imported[name] || len(own(p.Imports)) > 0 {
			of[name] = own(p.Imports)
		}
	}
	return of
}

// draw has a line for each package, those first that stand highest: below them is the longest
// way down.
func draw(of map[string][]string) string {
	heights := map[string]int{}
	var height func(string) int
	height = func(p string) int {
		if _, known := heights[p]; !known {
			heights[p] = 0 // Go has no cycles.
			for _, to := range of[p] {
				heights[p] = max(heights[p], height(to)+1)
			}
		}
		return heights[p]
	}
	var names []string
	width := 0
	for p := range of {
		height(p)
		names = append(names, p)
		width = max(width, len(p))
	}
	heights[ground] = -1 // Below all else that imports nothing.
	higher := func(a, b string) int { return cmp.Or(heights[b]-heights[a], strings.Compare(a, b)) }
	slices.SortFunc(names, higher)
	var b strings.Builder
	for _, p := range names {
		to := slices.DeleteFunc(slices.Clone(of[p]), func(to string) bool { return to == ground })
		slices.SortFunc(to, higher)
		line := p + " "
		switch {
		case len(to) > 0:
			line += strings.Repeat("─", width-len(p)+1) + "▶ " + strings.Join(to, "  ")
		case slices.Contains(of[p], ground):
			line += strings.Repeat("─", width-len(p)+1) + "▶ " + ground
		}
		b.WriteString(strings.TrimSpace(line) + "\n")
	}
	return b.String()
}

func TestDrawing_StandsHigherWhoImports(t *testing.T) {
	got := draw(map[string][]string{"roof": {"wall", "cluster"}, "wall": {"stone", "cluster"}, "stone": nil, "cluster": nil, "tent": {"cluster"}})
	want := "" +
		"roof ────▶ wall\n" +
		"tent ────▶ cluster\n" +
		"wall ────▶ stone\n" +
		"stone\n" +
		"cluster\n"
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}
