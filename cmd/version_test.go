package cmd

import (
	"os"
	"regexp"
	"testing"
)

// A build without a tag has the version that the changelog begins with, however it is made.
func TestVersion_IsTheChangelogs(t *testing.T) {
	find := func(path, pattern string) string {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		m := regexp.MustCompile("(?m)" + pattern).FindSubmatch(text)
		if m == nil {
			t.Fatalf("%s has nothing like %s", path, pattern)
		}
		return string(m[1])
	}
	want := find("../CHANGELOG.md", `^## (\d\S*)$`)
	for path, pattern := range map[string]string{
		"skep/main.go":  `^var version = "(.*)"$`,
		"../Makefile":   `^VERSION \?= \$\(patsubst v%,%,\$\(shell git describe --tags --abbrev=12 --dirty 2>/dev/null \|\| echo (\S+)\)\)$`,
		"../Dockerfile": `^ARG VERSION=(\S+)$`,
	} {
		if got := find(path, pattern); got != want {
			t.Errorf("%s says version %s; the changelog begins with %s", path, got, want)
		}
	}
}
