package api

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// flagRows are the rows of the table of a command's flags in DESIGN.md, without its head; there are
// at least so many.
func flagRows(t *testing.T, command string, least int) []string {
	t.Helper()
	text, err := os.ReadFile("DESIGN.md")
	if err != nil {
		t.Fatal(err)
	}
	var rows []string
	_, section, _ := strings.Cut(string(text), "\n## The flags of `docker "+command+"`")
	section, _, _ = strings.Cut(section, "\n## ")
	for line := range strings.Lines(section) {
		if strings.HasPrefix(line, "| ") && !strings.HasPrefix(line, "| create ") {
			rows = append(rows, strings.TrimSpace(line))
		}
	}
	if len(rows) < least {
		t.Fatalf("DESIGN.md has %d rows of flags of docker %s", len(rows), command)
	}
	return rows
}

var (
	helpFlag  = regexp.MustCompile(`(?m)^ +(?:-\w, )?(--[a-z0-9-]+)`)
	tableFlag = regexp.MustCompile("`(--[a-z0-9-]+)`")
)

// TestFlags_StandInTheDesign: every flag of the docker command has its row, in the
// column of its command, and no row has a flag that no command has.
func TestFlags_StandInTheDesign(t *testing.T) {
	c := newCLI(t, newBench(t))
	version := c.docker(`^\d+\.`, "version", "-f", "{{.Client.Version}}")
	old := version < "28" // and so has fewer flags
	for _, command := range []struct {
		noun, verb  string
		rows        []string
		column, has int
	}{
		{"service", "create", flagRows(t, "service create", 40), 1, 60}, {"service", "update", flagRows(t, "service create", 40), 2, 60},
		{"network", "create", flagRows(t, "network create", 10), 1, 14},
	} {
		stands := map[string]bool{}
		for _, row := range command.rows {
			cells := strings.Split(row, "|")
			if len(cells) != 5 {
				t.Fatalf("a row has %d cells: %s", len(cells)-2, row)
			}
			cell := cells[command.column]
			if strings.TrimSpace(cell) == "the same" {
				cell = cells[1]
			}
			for _, match := range tableFlag.FindAllStringSubmatch(cell, -1) {
				stands[match[1]] = true
			}
		}
		name := command.noun + " " + command.verb
		help := c.docker("--label", command.noun, command.verb, "--help")
		flags := helpFlag.FindAllStringSubmatch(help, -1)
		if len(flags) < command.has {
			t.Fatalf("docker %s --help has %d flags:\n%s", name, len(flags), help)
		}
		has := map[string]bool{}
		for _, match := range flags {
			if has[match[1]] = true; !stands[match[1]] {
				t.Errorf("docker %s has %s, and DESIGN.md doesn't say what becomes of it", name, match[1])
			}
		}
		for flag := range stands {
			if !has[flag] && !old {
				t.Errorf("docker %s has no %s, of which DESIGN.md speaks", name, flag)
			}
		}
	}
}

var (
	testName   = regexp.MustCompile(`\bTest[A-Z]\w*`)
	scriptName = regexp.MustCompile(`scheduler/testdata/\w+\.txt`)
	testFunc   = regexp.MustCompile(`(?m)^func (Test\w+)\(`)
)

// TestDesign_NamesTestsThatThereAre: each row of the table says how it is known, by tests
// that exist.
func TestDesign_NamesTestsThatThereAre(t *testing.T) {
	tests := map[string]bool{}
	root := filepath.Join("..", "..")
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, match := range testFunc.FindAllSubmatch(text, -1) {
			tests[string(match[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("DESIGN.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range testName.FindAllString(string(text), -1) {
		if !tests[name] {
			t.Errorf("DESIGN.md names %s, and there is no such test", name)
		}
	}
	for _, name := range scriptName.FindAllString(string(text), -1) {
		if _, err := os.Stat(filepath.Join(root, name)); err != nil {
			t.Errorf("DESIGN.md: %v", err)
		}
	}
	for _, row := range append(flagRows(t, "service create", 40), flagRows(t, "network create", 10)...) {
		if !testName.MatchString(row) && !strings.Contains(row, "see scheduler") {
			t.Errorf("a row doesn't say how it is known: %s", row)
		}
	}
}
