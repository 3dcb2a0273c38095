package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Each command that help shows has a page, which troff takes without a complaint.
func TestMan_HasAPageOfEachCommand(t *testing.T) {
	dir := t.TempDir()
	if r := skep(t, nil, "man", dir); r.status != 0 {
		t.Fatalf("status %d: %s", r.status, r.stderr)
	}
	read := func(page string) string {
		text, err := os.ReadFile(filepath.Join(dir, page+".1"))
		if err != nil {
			t.Error(err)
		}
		return string(text)
	}
	for page, says := range map[string]string{
		"skep":                `\fBskep\-daemon\fR(1)`,
		"skep-daemon":         `\fB\-\-advertise\-addr\fR`,
		"skep-service":        `\fBskep\-service\-why\fR(1)`,
		"skep-service-create": `\fB\-\-replicas\fR \fIuint\fR`,
		"skep-service-why":    "how many nodes its constraints exclude",
		"skep-upgrade-check":  `\fBskep\-upgrade\fR(1)`,
	} {
		if text := read(page); !strings.Contains(text, says) {
			t.Errorf("%s doesn't have %q:\n%s", page, says, text)
		}
	}
	if text := read("skep"); !strings.Contains(text, "(default ~/.docker)") {
		t.Errorf("the page has the home directory of who wrote it:\n%s", text)
	}
	pages, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(pages) < 70 {
		t.Errorf("%d pages, %v", len(pages), err)
	}
	for _, hidden := range []string{"skep-man.1", "skep-dns.1", "skep-completion.1"} {
		if _, err := os.Stat(filepath.Join(dir, hidden)); err == nil {
			t.Errorf("there is %s", hidden)
		}
	}
	if _, err := exec.LookPath("groff"); err != nil {
		t.Skip("there is no groff to read the pages by")
	}
	if out, err := exec.Command("groff", append([]string{"-man", "-Tutf8", "-ww", "-z"}, pages...)...).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("groff: %v\n%s", err, out)
	}
}

func TestRoff_HasNoCommandsAndEscapes(t *testing.T) {
	if got, want := paragraphs("A \\n and\n.so /etc/passwd\n\n  x - y\n'z"), "A \\en and\n\\&.so /etc/passwd\n.PP\n.nf\n  x \\- y\n.fi\n\\&'z"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
