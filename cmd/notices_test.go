package cmd

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// What is linked into the binary must go with its licence: `make notices` has one for each.
func TestNotices_EveryLinkedModuleHasOne(t *testing.T) {
	out, err := exec.Command("../.ci/notices").Output()
	if err != nil {
		t.Fatalf("make notices: %v: %s", err, stderr(err))
	}
	linked, err := exec.Command("go", "list", "-deps", "-f", "{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}}{{end}}{{end}}", "./skep").Output()
	if err != nil {
		t.Fatalf("go list: %v: %s", err, stderr(err))
	}
	modules := map[string]bool{}
	for _, module := range strings.Split(strings.TrimSpace(string(linked)), "\n") {
		modules[module] = module != ""
	}
	if len(modules) < 50 {
		t.Fatalf("%d modules are linked", len(modules))
	}
	for module, named := range modules {
		// Its name, a file's, and text.
		if named && !regexp.MustCompile(`={80}\n`+regexp.QuoteMeta(module)+`\n\n--- \S+\n\n\s*\S`).Match(out) {
			t.Errorf("no licence of %s", module)
		}
	}
}

// A module without one is found, whatever else there is.
func TestNotices_RefusesAModuleWithoutOne(t *testing.T) {
	dir := t.TempDir()
	bare := filepath.Join(dir, "bare")
	tool := "#!/bin/sh\ncase $1 in list) echo example.org/bare v1.0.0 " + bare + " " + bare + ";; *) exec " + goTool(t) + " \"$@\";; esac\n"
	if err := os.MkdirAll(bare, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "go"), []byte(tool), 0o755); err != nil {
		t.Fatal(err)
	}
	run := func() error {
		cmd := exec.Command("../.ci/notices")
		cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
		_, err := cmd.Output()
		return err
	}
	if err := run(); err == nil || !strings.Contains(stderr(err), "example.org/bare v1.0.0 has no licence") {
		t.Errorf("without a licence: %v: %s", err, stderr(err))
	}
	if err := os.WriteFile(filepath.Join(bare, "LICENSE"), []byte("do what you like"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := run(); err != nil {
		t.Errorf("with one: %v: %s", err, stderr(err))
	}
}

func goTool(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("go")
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// stderr is what a command that failed said.
func stderr(err error) string {
	if exit, is := err.(*exec.ExitError); is {
		return string(exit.Stderr)
	}
	return ""
}
