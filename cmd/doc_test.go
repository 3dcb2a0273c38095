package cmd

import (
	"go/parser"
	"go/token"
	"path/filepath"
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
