package cmd

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// shortestDoc is a sentence that says something.
const shortestDoc = 60

func TestDoc_EveryPackageHasExactlyOne(t *testing.T) {
	for _, p := range list(t) {
		if len(p.GoFiles) == 0 {
			continue // only tests
		}
		var with []string
		for _, file := range p.GoFiles {
			f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, file), nil, parser.PackageClauseOnly|parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			if f.Doc == nil {
				continue
			}
			with = append(with, file)
			text := f.Doc.Text()
			start := "Package " + p.Name + " "
			if p.Name == "main" {
				start = "Command " + filepath.Base(p.Dir) + " "
			}
			if !strings.HasPrefix(text, start) {
				t.Errorf("%s/%s: the package doc doesn't begin with %q", p.ImportPath, file, start)
			}
			if len(text) < shortestDoc {
				t.Errorf("%s/%s: the package doc says too little", p.ImportPath, file)
			}
		}
		if len(with) != 1 {
			t.Errorf("%s: want one package doc, have %d %v", p.ImportPath, len(with), with)
		}
	}
}

// namesTest finds names of tests in a text.
var namesTest = regexp.MustCompile(`\b(?:Test|Fuzz|Benchmark)[A-Z]\w*`)

// A page that says which test shows something names one that is there: by its name, or by
// what several have before the underscore.
func TestDoc_TestsThatPagesNameAreThere(t *testing.T) {
	there := map[string]bool{"FuzzX": true} // stands for any
	pages := map[string]string{}
	err := filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && strings.HasPrefix(entry.Name(), ".") && entry.Name() != "..":
			return fs.SkipDir
		case strings.HasSuffix(path, ".md"):
			text, err := os.ReadFile(path)
			pages[path] = string(text)
			return err
		case !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, d := range file.Decls {
			if f, is := d.(*ast.FuncDecl); is && f.Recv == nil && namesTest.MatchString(f.Name.Name) {
				group, _, _ := strings.Cut(f.Name.Name, "_")
				there[f.Name.Name], there[group], there[group+"_"] = true, true, true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	named := 0
	for path, text := range pages {
		names := namesTest.FindAllString(text, -1)
		slices.Sort(names)
		for _, name := range slices.Compact(names) {
			if named++; !there[name] {
				t.Errorf("%s: there is no %s", path, name)
			}
		}
	}
	if named < 50 {
		t.Errorf("the pages name %d tests", named)
	}
}

// The table of cmd/DESIGN.md has each direct dependency of go.mod, and no other, and where it
// names a version that is the one.
func TestDoc_DependencyTableIsGoMod(t *testing.T) {
	direct := map[string]string{} // short name → version without its v
	mod, err := os.ReadFile("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	short := func(module string) string { return strings.TrimPrefix(module, "github.com/") }
	for _, m := range regexp.MustCompile(`(?m)^\t(\S+) v(\S+)$`).FindAllStringSubmatch(string(mod), -1) { // "// indirect" ends otherwise
		direct[short(m[1])] = strings.TrimSuffix(m[2], "+incompatible")
	}
	for _, m := range regexp.MustCompile(`(?m)^tool (\S+)$`).FindAllStringSubmatch(string(mod), -1) {
		module, _, _ := strings.Cut(m[1], "/cmd/")
		direct[short(module)] = ""
	}
	page, err := os.ReadFile("DESIGN.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(page), "\n| module | what for |\n|---|---|\n")
	if !found || len(direct) < 10 {
		t.Fatalf("no table of dependencies in DESIGN.md, or too few of them in go.mod: %v", direct)
	}
	named := map[string]bool{}
	for _, line := range strings.Split(table, "\n") {
		cells := strings.Split(line, "|")
		if len(cells) < 4 {
			break
		}
		for _, entry := range strings.Split(cells[1], ",") {
			name, version, _ := strings.Cut(strings.TrimSpace(entry), " ")
			named[name] = true
			switch have, is := direct[name]; {
			case !is:
				t.Errorf("DESIGN.md: %s is no direct dependency", name)
			case version != "" && version != have:
				t.Errorf("DESIGN.md: %s is at %s, not %s", name, have, version)
			}
		}
	}
	for name := range direct {
		if !named[name] {
			t.Errorf("DESIGN.md doesn't say what %s is for", name)
		}
	}
}

// A page that says which script shows something names one that is there, from where the page
// is or from the root.
func TestDoc_ScriptsThatPagesNameAreThere(t *testing.T) {
	script := regexp.MustCompile(`[\w/]*testdata/\w+\.txt`)
	named := 0
	err := filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && strings.HasPrefix(entry.Name(), ".") && entry.Name() != "..":
			return fs.SkipDir
		case !strings.HasSuffix(path, ".md"):
			return nil
		}
		text, err := os.ReadFile(path)
		for _, name := range script.FindAllString(string(text), -1) {
			named++
			_, beside := os.Stat(filepath.Join(filepath.Dir(path), name))
			if _, below := os.Stat(filepath.Join("..", name)); beside != nil && below != nil {
				t.Errorf("%s: there is no %s", path, name)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if named < 30 {
		t.Errorf("the pages name %d scripts", named)
	}
}
