package guard

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// The lines of memberlist that the package's doc names are those of the version that is
// used. When they aren't any more: is the guard still needed, and for what?
func TestGuard_DocHasTheLinesOfMemberlist(t *testing.T) {
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	found, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}} {{.Version}}", "github.com/hashicorp/memberlist").Output()
	if err != nil {
		t.Fatal(err)
	}
	dir, version, _ := strings.Cut(strings.TrimSpace(string(found)), " ")
	if !strings.Contains(string(doc), "memberlist "+strings.TrimPrefix(version, "v")+" ") {
		t.Errorf("the doc is of another version than %s", version)
	}
	named := regexp.MustCompile(`(?m)^//\t(\w+\.go):(\d+) +(.+?) +// `).FindAllStringSubmatch(string(doc), -1)
	if len(named) < 9 {
		t.Errorf("the doc names %d lines", len(named))
	}
	for _, line := range named {
		text, err := os.ReadFile(filepath.Join(dir, line[1]))
		if err != nil {
			t.Fatal(err)
		}
		number, _ := strconv.Atoi(line[2])
		if lines := strings.Split(string(text), "\n"); number > len(lines) || strings.TrimSpace(lines[number-1]) != line[3] {
			t.Errorf("%s:%s isn't %q", line[1], line[2], line[3])
		}
	}
}
