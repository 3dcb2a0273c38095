package crashtest

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// childDir tells the recorded run its folder.
const childDir = "SKEP_CRASH_DIR"

// ackPrefix begins a line on standard output that says what is acknowledged.
const ackPrefix = "crashtest ack "

// Ack notes, in the recorded run, that what text says must be found from now on.
func Ack(text string) { os.Stdout.WriteString(ackPrefix + text + "\n") }

// kind is what a step does.
type kind string

const (
	create   kind = "create"
	write    kind = "write"
	truncate kind = "truncate"
	syncFile kind = "sync"
	syncDir  kind = "sync folder"
	rename   kind = "rename"
	remove   kind = "remove"
	mkdir    kind = "mkdir"
	ack      kind = "ack"
)

// step is one thing that the run did. Paths are below the folder; a file is named by
// a number, since its path may change.
type step struct {
	kind     kind
	path, to string
	file     int
	at       int64
	data     []byte
}

// Trace is what a run did to its folder.
type Trace struct {
	steps []step
	// paths has the path at which each file was first seen, for who reads a failure.
	paths []string
}

// Record runs the test named again, in a process of its own, which gets dir and
// does there what shall be recorded. In that process it calls run and ends it. It
// skips the test where strace isn't there, and fails it where SKEP_REQUIRE_DOCKER=1
// says that nothing may be missing.
func Record(t *testing.T, test string, run func(dir string)) *Trace {
	t.Helper()
	if dir := os.Getenv(childDir); dir != "" {
		run(dir)
		os.Exit(0)
	}
	if _, err := exec.LookPath("strace"); err != nil {
		if os.Getenv("SKEP_REQUIRE_DOCKER") == "1" {
			t.Fatal("strace is needed, and SKEP_REQUIRE_DOCKER=1")
		}
		t.Skip("NOTICE: there is no strace: crashes are not tried")
	}
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "trace")
	command := exec.Command("strace", "-f", "-o", out, "-xx", "-s", "16777216", "-e",
		"trace=openat,close,write,pwrite64,pwritev,ftruncate,fallocate,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,rmdir,copy_file_range,sendfile,link,linkat,symlinkat,mmap",
		os.Args[0], "-test.run", "^"+test+"$", "-test.count=1")
	command.Env = append(os.Environ(), childDir+"="+dir)
	if text, err := command.CombinedOutput(); err != nil {
		t.Fatalf("record %s: %v\n%s", test, err, text)
	}
	file, err := os.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	trace, err := read(file, dir)
	if err != nil {
		t.Fatal(err)
	}
	return trace
}

var (
	callLine    = regexp.MustCompile(`^(\d+) +(\w+)\((.*)\) += (-?\d+|\?)`)
	brokenLine  = regexp.MustCompile(`^(\d+) +(\w+\(.*?) ?<unfinished \.\.\.>$`)
	resumedLine = regexp.MustCompile(`^(\d+) +<\.\.\. \w+ resumed>(.*)$`)
	quoted      = regexp.MustCompile(`"((?:\\x[0-9a-f]{2})*)"`)
)

// reader turns strace's lines into steps.
type reader struct {
	dir   string
	trace *Trace
	// files has the number of the file behind each path and each open file; folders
	// the path of each open folder.
	byPath  map[string]int
	open    map[int]int
	folders map[int]string
}

func read(file *os.File, dir string) (*Trace, error) {
	r := &reader{dir: dir, trace: &Trace{}, byPath: map[string]int{}, open: map[int]int{}, folders: map[int]string{}}
	unfinished := map[string]string{}
	lines := bufio.NewReaderSize(file, 1<<20)
	for {
		line, err := lines.ReadString('\n')
		if line == "" && err != nil {
			return r.trace, nil
		}
		line = strings.TrimRight(line, "\n")
		if m := brokenLine.FindStringSubmatch(line); m != nil {
			unfinished[m[1]] = m[2]
			continue
		}
		if m := resumedLine.FindStringSubmatch(line); m != nil {
			line = m[1] + " " + unfinished[m[1]] + m[2]
			delete(unfinished, m[1])
		}
		m := callLine.FindStringSubmatch(line)
		if m == nil || m[4] == "?" {
			continue
		}
		result, err := strconv.Atoi(m[4])
		if err != nil {
			return nil, fmt.Errorf("read trace: %w: %.200s", err, line)
		}
		if result < 0 {
			continue
		}
		if err := r.call(m[2], m[3], result); err != nil {
			return nil, fmt.Errorf("read trace: %w: %.200s", err, line)
		}
	}
}

func (r *reader) add(s step) { r.trace.steps = append(r.trace.steps, s) }

// strings are a call's quoted arguments; rest are the others, in order.
func arguments(text string) (texts []string, rest []string) {
	for _, m := range quoted.FindAllStringSubmatch(text, -1) {
		var b strings.Builder
		for i := 0; i+4 <= len(m[1]); i += 4 {
			value, _ := strconv.ParseUint(m[1][i+2:i+4], 16, 8)
			b.WriteByte(byte(value))
		}
		texts = append(texts, b.String())
	}
	for _, part := range strings.Split(quoted.ReplaceAllString(text, ""), ",") {
		rest = append(rest, strings.TrimSpace(part))
	}
	return texts, rest
}

// inside is a path below the folder, relative to it.
func (r *reader) inside(path string) (string, bool) {
	if path == r.dir {
		return ".", true
	}
	return strings.CutPrefix(path, r.dir+"/")
}

func (r *reader) call(name, text string, result int) error {
	texts, rest := arguments(text)
	number := func(i int) int64 {
		n, err := strconv.ParseInt(rest[i], 0, 64)
		if err != nil {
			return -1
		}
		return n
	}
	switch name {
	case "openat":
		r.opened(texts[0], rest[2], result)
	case "close":
		delete(r.open, int(number(0)))
		delete(r.folders, int(number(0)))
	case "write", "pwrite64":
		fd := int(number(0))
		if fd == 1 {
			for line := range strings.Lines(texts[0]) {
				if text, ok := strings.CutPrefix(strings.TrimSpace(line), ackPrefix); ok {
					r.add(step{kind: ack, path: text})
				}
			}
			return nil
		}
		file, ours := r.open[fd]
		if !ours {
			return nil
		}
		at := int64(-1) // the end
		if name == "pwrite64" {
			at = number(len(rest) - 1)
		}
		if len(texts[0]) < result {
			return fmt.Errorf("%d bytes of %d are known", len(texts[0]), result)
		}
		r.add(step{kind: write, file: file, at: at, data: []byte(texts[0][:result])})
	case "ftruncate":
		if file, ours := r.open[int(number(0))]; ours {
			r.add(step{kind: truncate, file: file, at: number(1)})
		}
	case "fsync", "fdatasync":
		fd := int(number(0))
		if file, ours := r.open[fd]; ours {
			r.add(step{kind: syncFile, file: file})
		} else if path, ours := r.folders[fd]; ours {
			r.add(step{kind: syncDir, path: path})
		}
	case "rename", "renameat", "renameat2":
		from, ours := r.inside(texts[0])
		to, there := r.inside(texts[1])
		if !ours || !there {
			return nil
		}
		r.add(step{kind: rename, path: from, to: to})
		moved := map[string]int{}
		for path, file := range r.byPath {
			if rest, below := strings.CutPrefix(path, from); below && (rest == "" || rest[0] == '/') {
				moved[to+rest] = file
				delete(r.byPath, path)
			}
		}
		for path, file := range moved {
			r.byPath[path] = file
		}
	case "unlink", "unlinkat", "rmdir":
		if path, ours := r.inside(texts[0]); ours {
			r.add(step{kind: remove, path: path})
			delete(r.byPath, path)
		}
	case "mkdir", "mkdirat":
		if path, ours := r.inside(texts[0]); ours {
			r.add(step{kind: mkdir, path: path})
		}
	case "mmap":
		if fd, err := strconv.Atoi(rest[4]); err == nil && strings.Contains(rest[3], "MAP_SHARED") && strings.Contains(rest[2], "PROT_WRITE") {
			if _, ours := r.open[fd]; ours {
				return fmt.Errorf("a file is written through memory, which this can't follow")
			}
		}
	default:
		for _, path := range texts {
			if _, ours := r.inside(path); ours {
				return fmt.Errorf("%s is a call that this doesn't know", name)
			}
		}
	}
	return nil
}

func (r *reader) opened(path, flags string, fd int) {
	delete(r.open, fd)
	delete(r.folders, fd)
	path, ours := r.inside(path)
	if !ours {
		return
	}
	file, known := r.byPath[path]
	switch {
	case known:
		if strings.Contains(flags, "O_TRUNC") {
			r.add(step{kind: truncate, file: file})
		}
	case strings.Contains(flags, "O_CREAT"):
		file = len(r.trace.paths)
		r.trace.paths = append(r.trace.paths, path)
		r.byPath[path] = file
		r.add(step{kind: create, path: path, file: file})
	default:
		r.folders[fd] = path
		return
	}
	r.open[fd] = file
}

// Acks are all that the run acknowledged, in order.
func (trace *Trace) Acks() (all []string) {
	for _, s := range trace.steps {
		if s.kind == ack {
			all = append(all, s.path)
		}
	}
	return all
}
