package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/docker/docker/api/types/image"
)

// A block of the README is played: commands stand behind "$ ", with what they print below them. Other blocks
// are a file, whose first line has its name, or for a case that begins with "# If".
type block struct {
	line  int // of its first one, in the README
	steps []step
	// file is the name of a file, and text what is in it.
	file, text string
}

const (
	readmeChapter = "## Several machines"
	// elided stands for lines before those that are shown.
	elided = "..."
	onlyIf = "# If "
)

// readmeBlocks are the blocks of a chapter, in order. One that nobody knows how to play is an error.
func readmeBlocks(readme, chapter string) (blocks []block, skipped int, err error) {
	var lines []string // of the block that is read
	begin, inside, indent, yaml := 0, false, "", false
	there := false
	for i, line := range strings.Split(readme, "\n") {
		if !inside && strings.HasPrefix(line, "## ") {
			there = line == chapter
		}
		fence, info, is := strings.Cut(line, "```")
		switch {
		case !there:
		case is && !inside && strings.TrimSpace(fence) == "":
			begin, inside, indent, yaml, lines = i+2, true, fence, info == "yaml", nil
		case is && inside && fence == indent:
			inside = false
			b, err := parseBlock(lines, begin, yaml)
			switch {
			case err != nil:
				return nil, 0, fmt.Errorf("README.md:%d: %w", begin, err)
			case b.file == "" && len(b.steps) == 0:
				skipped++
			default:
				blocks = append(blocks, b)
			}
		case inside:
			lines = append(lines, strings.TrimPrefix(line, indent))
		}
	}
	if inside || begin == 0 {
		return nil, 0, fmt.Errorf("README.md has no whole chapter %q", chapter)
	}
	return blocks, skipped, nil
}

func parseBlock(lines []string, begin int, yaml bool) (b block, err error) {
	b.line = begin
	if len(lines) == 0 {
		return b, errors.New("an empty block")
	}
	name, comment := strings.CutPrefix(lines[0], "# ")
	switch {
	case strings.HasPrefix(lines[0], onlyIf):
		return b, nil
	case yaml && comment && name == filepath.Base(name):
		b.file, b.text = name, strings.Join(lines, "\n")+"\n"
		return b, nil
	}
	for i, line := range lines {
		if command, is := strings.CutPrefix(line, "$ "); is {
			b.steps = append(b.steps, step{kind: '$', text: command, line: begin + i})
			continue
		}
		if len(b.steps) == 0 {
			return b, fmt.Errorf("the block begins with %q, and not with a command behind \"$ \", a file's name (of yaml), or %q", line, onlyIf)
		}
		last := &b.steps[len(b.steps)-1]
		if line == elided && len(last.expected) > 0 {
			return b, fmt.Errorf("%q isn't before all that is shown of what a command prints", elided)
		}
		if line != "" {
			last.expected = append(last.expected, strings.TrimRight(line, " "))
		}
	}
	return b, nil
}

// varying is what the README shows in full and is another at each run.
var varying = []struct {
	is *regexp.Regexp
	as string
}{
	{regexp.MustCompile(`\b[0-9a-z]{25}\b`), "<ID>"},
	{regexp.MustCompile(`\b[0-9a-z]{12}\b`), "<id>"},
	{regexp.MustCompile(`\b\d+\.\ds\b`), "<any>"},
	{regexp.MustCompile(`\b20\.10\.\S+`), "<any>"},
	// Whoever leads.
	{regexp.MustCompile(`\b(Leader|Reachable)\b`), "<manager>"},
	{regexp.MustCompile(`In this order: .*`), "In this order: <any>"},
}

// checkShown compares what a command printed with what the README shows of that: nothing, all, or the end.
func checkShown(s step, output string) error {
	if len(s.expected) == 0 {
		return nil
	}
	s.expected = slices.Clone(s.expected)
	for i := range s.expected {
		for _, v := range varying {
			s.expected[i] = v.is.ReplaceAllString(s.expected[i], v.as)
		}
	}
	if s.expected[0] == elided {
		s.expected = s.expected[1:]
		got := lines(output)
		output = strings.Join(got[max(0, len(got)-len(s.expected)):], "\n")
	}
	return s.check(output)
}

func readReadme(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestReadme_CanBePlayed reads the chapter that TestMachinesReadme plays.
func TestReadme_CanBePlayed(t *testing.T) {
	blocks, skipped, err := readmeBlocks(readReadme(t), readmeChapter)
	if err != nil {
		t.Fatal(err)
	}
	steps, shown := 0, 0
	for _, b := range blocks {
		for _, s := range b.steps {
			steps++
			if len(s.expected) > 0 {
				shown++
			}
		}
	}
	t.Logf("%d commands, with output of %d, in %d blocks, and %d for some case only", steps, shown, len(blocks), skipped)
	if steps < 30 || shown < 10 || skipped > 4 {
		t.Error("that is no chapter that can be played")
	}
}

func TestReadmeBlocks(t *testing.T) {
	const before = "# x\n```\nnot ours\n```\n## A\n"
	blocks, skipped, err := readmeBlocks(before+"1. x\n\n   ```\n   $ a b\n   one  \n\n   two\n   $ c\n   ...\n   d\n   ```\n```\n# If x:\ny\n```\n```yaml\n# f.yml\na: b\n```\n## B\n```\nz\n```\n", "## A")
	if err != nil || skipped != 1 || len(blocks) != 2 {
		t.Fatalf("%+v, %d, %v", blocks, skipped, err)
	}
	if s := blocks[0].steps; len(s) != 2 || s[0].text != "a b" || s[0].line != 9 || strings.Join(s[0].expected, "|") != "one|two" || strings.Join(s[1].expected, "|") != "...|d" {
		t.Errorf("%+v", s)
	}
	if b := blocks[1]; b.file != "f.yml" || b.text != "# f.yml\na: b\n" {
		t.Errorf("%+v", b)
	}
	for text, says := range map[string]string{
		"## A\n```\nls\n```\n":                  "README.md:3: the block begins with \"ls\"",
		"## A\n```yaml\na: b\n```\n":            "begins with",
		"## A\n```yaml\n# ../../a\na: b\n```\n": "begins with",
		"## A\n```\n# f.yml\n```\n":             "begins with",
		"## A\n```\n```\n":                      "an empty block",
		"## A\n```\n$ a\nb\n...\n```\n":         "isn't before",
		"## A\n```\n$ a\n":                      "no whole chapter",
		"## B\n```\n$ a\n```\n":                 "no whole chapter",
	} {
		if _, _, err := readmeBlocks(text, "## A"); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, want something with %q", text, err, says)
		}
	}
}

func TestCheckShown(t *testing.T) {
	for _, c := range []struct {
		shown, printed string
		ok             bool
	}{
		{"", "anything\n", true},
		{"a\nb", "a\nb\n", true},
		{"a", "a\nb\n", false},
		{"...\nb", "a\nb\n", true},
		{"...\nb", "a\nb\nc\n", false},
		{"...\nb\nc", "c\n", false},
		{"4 machines after 14.2s.", "4 machines after 9.0s.\n", true},
		{"4 machines after 14.2s.", "3 machines after 9.0s.\n", false},
		{"pv9m3yk6tdhc   a   6/6", "abcdefghijk1   a       6/6\n", true},
		{"pv9m3yk6tdhc   a   6/6", "abcdefghijk1   a   5/6\n", false},
		{"0t9v2xxqk4ptvkpfvlyhz0b8f *   n   Ready   20.10.24+dfsg1", "0t9v2xxqk4ptvkpfvlyhz0bab *   n       Ready   26.1.0\n", true},
	} {
		if err := checkShown(step{text: "x", expected: lines(c.shown)}, c.printed); (err == nil) != c.ok {
			t.Errorf("%q of %q: %v", c.shown, c.printed, err)
		}
	}
}

// reader is somebody who does what the README says: dir has the source, with the binaries that it makes.
type reader struct {
	*testing.T
	ctx context.Context
	dir string
	env []string
	// kept are the commands so far that later ones in the same shell would go by.
	kept []string
}

const readmeNodes = 4

// TestMachinesReadme has machines, and the README's chapter done on them word by word.
func TestMachinesReadme(t *testing.T) {
	if os.Getenv(testMachines) != "1" {
		t.Skip("make test-machines: takes minutes, and Debian's packages the first time")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	blocks, _, err := readmeBlocks(readReadme(t), readmeChapter)
	if err != nil {
		t.Fatal(err)
	}
	r := newReader(ctx, t)
	for _, b := range blocks {
		if b.file != "" {
			writeFile(t, filepath.Join(r.dir, b.file), b.text)
		}
		for _, s := range b.steps {
			r.does(s)
		}
	}
}

func newReader(ctx context.Context, t *testing.T) *reader {
	t.Helper()
	r := &reader{T: t, ctx: ctx, dir: t.TempDir()}
	copied := exec.CommandContext(ctx, "sh", "-ec", `cd ../.. && git ls-files -z --cached --others --exclude-standard | tar -c --null --ignore-failed-read -T - | tar -x -C "$0"`, r.dir)
	if out, err := copied.CombinedOutput(); err != nil {
		t.Fatalf("copy the source: %v\n%s", err, out)
	}
	bin := filepath.Join(r.dir, "bin")
	for _, args := range [][]string{{"-C", r.dir, "-s", "build"}} {
		if out, err := exec.CommandContext(ctx, "make", args...).CombinedOutput(); err != nil {
			t.Fatalf("make: %v\n%s", err, out)
		}
	}
	if err := os.Rename(later(t, "0.2.0").binary, filepath.Join(bin, "skep-new")); err != nil {
		t.Fatal(err)
	}
	r.makeImages(bin)
	dir := t.TempDir()
	key, authorized := newKey(ctx, t, dir)
	// Who trusts a host at its first connection says so in a configuration of their own.
	config := fmt.Sprintf("Host *\n IdentityFile %s\n IdentitiesOnly yes\n UserKnownHostsFile %s\n StrictHostKeyChecking accept-new\n LogLevel ERROR\n", key, filepath.Join(dir, "known"))
	hosts := ""
	machines := newMachines(ctx, t, readmeNodes, authorized)
	for i, m := range machines {
		config += fmt.Sprintf("Host node%d\n HostName %s\n", i+1, m.addr)
		hosts += fmt.Sprintf("%s node%d\n", m.addr, i+1)
	}
	for i, m := range machines {
		if _, err := m.run(ctx, "sh", "-ec", fmt.Sprintf(`hostname node%d && hostname >/etc/hostname && printf '%%s' "$0" >>/etc/hosts && systemctl restart docker`, i+1), hosts); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		for _, m := range machines {
			journal, _ := m.run(context.WithoutCancel(ctx), "journalctl", "-u", "skep", "--no-pager", "-n", "20", "-o", "short-precise")
			t.Logf("%s:\n%s", m.name, journal)
		}
	})
	programs := filepath.Join(dir, "programs")
	configureSSH(t, programs, filepath.Join(dir, "config"), config)
	r.env = append(os.Environ(), "PATH="+programs+":"+bin+":"+os.Getenv("PATH"), "DOCKER_CONFIG="+filepath.Join(dir, "docker"), "TERM=dumb", "DOCKER_CLI_HINTS=false")
	return r
}

// makeImages does what "make images" does, and leaves the engine as it was.
func (r *reader) makeImages(bin string) {
	r.Helper()
	engine, err := connect(defaultEngine)
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { _ = engine.Close() })
	for _, tag := range []string{oldImage, newImage} {
		if _, err := engine.ImageInspect(r.ctx, tag); err != nil {
			r.Cleanup(func() {
				_, _ = engine.ImageRemove(context.WithoutCancel(r.ctx), tag, image.RemoveOptions{Force: true, PruneChildren: true})
			})
		}
	}
	if err := buildTimecheck(r.ctx, lab{bin: bin, engine: defaultEngine}); err != nil {
		r.Fatal(err)
	}
}

var (
	// looks are the commands that change nothing: what they show may take a moment to come about, as for whoever types.
	looks = regexp.MustCompile(`^(ssh \S+ )?(skep|bin/skep-new|docker --context skep) (node ls|service ls|stack services \w+|cluster status|upgrade check|upgrade status)$`)
	// keeps are those that change the shell.
	keeps = regexp.MustCompile(`^(export |\w+\(\) )`)
)

// does runs one command, and wants what the README shows.
func (r *reader) does(s step) {
	r.Helper()
	begin := time.Now()
	out, errOut, err := r.shell(s.text)
	if looks.MatchString(s.text) {
		_ = until(r.ctx, patience, "what the README shows", func(context.Context) error {
			if err == nil {
				err = checkShown(s, out)
			}
			if err != nil {
				last := err
				out, errOut, err = r.shell(s.text)
				return last
			}
			return nil
		})
	}
	r.Logf("README.md:%d: $ %s: %v\n%s%s", s.line, s.text, time.Since(begin).Round(100*time.Millisecond), out, errOut)
	if err == nil {
		err = checkShown(s, out)
	}
	if err != nil {
		r.Fatalf("README.md:%d: %v", s.line, err)
	}
	if keeps.MatchString(s.text) {
		r.kept = append(r.kept, s.text)
	}
}

func (r *reader) shell(command string) (out, errOut string, err error) {
	ctx, cancel := context.WithTimeout(r.ctx, 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-ec", strings.Join(append(slices.Clone(r.kept), command), "\n"))
	cmd.Dir, cmd.Env = r.dir, r.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = cmd.Run()
	return stdout.String(), stderr.String(), err
}
