package crashtest

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
)

// change is a write or a new length that isn't synced yet.
type change struct {
	truncate bool
	at       int64
	data     []byte
}

func (c change) apply(content []byte) []byte {
	if c.truncate {
		if c.at <= int64(len(content)) {
			return content[:c.at]
		}
		return append(content, make([]byte, c.at-int64(len(content)))...)
	}
	if end := c.at + int64(len(c.data)); end > int64(len(content)) {
		content = append(content, make([]byte, end-int64(len(content)))...)
	}
	copy(content[c.at:], c.data)
	return content
}

// file is what is on the disk for certain, and what isn't yet.
type file struct {
	synced  []byte
	pending []change
	length  int64 // with what is pending
}

// with is the content with some of what is pending.
func (f *file) with(chosen func(i int) bool) []byte {
	content := append([]byte(nil), f.synced...)
	for i, c := range f.pending {
		if chosen(i) {
			content = c.apply(content)
		}
	}
	return content
}

// folder has the names that everybody sees, and those that are on the disk for
// certain: as they were when it was last synced.
type folder struct{ names, synced map[string]int }

func newFolder() *folder { return &folder{map[string]int{}, map[string]int{}} }

// root is the number of the folder that the run got.
const root = -1

// disk is the folder at one moment. Files have numbers; those of folders are negative.
type disk struct {
	files   map[int]*file
	folders map[int]*folder
}

func newDisk() *disk { return &disk{map[int]*file{}, map[int]*folder{root: newFolder()}} }

// folder finds the folder at a path.
func (d *disk) folder(at string) *folder {
	number := root
	if at != "." {
		for name := range strings.SplitSeq(at, "/") {
			number = d.folders[number].names[name]
		}
	}
	return d.folders[number]
}

func (d *disk) do(s step) {
	switch s.kind {
	case create:
		d.files[s.file] = &file{}
		d.folder(path.Dir(s.path)).names[path.Base(s.path)] = s.file
	case write:
		f := d.files[s.file]
		at := s.at
		if at < 0 {
			at = f.length
		}
		f.pending = append(f.pending, change{at: at, data: s.data})
		f.length = max(f.length, at+int64(len(s.data)))
	case truncate:
		f := d.files[s.file]
		f.pending = append(f.pending, change{truncate: true, at: s.at})
		f.length = s.at
	case syncFile:
		f := d.files[s.file]
		f.synced, f.pending = f.with(func(int) bool { return true }), nil
	case syncDir:
		f := d.folder(s.path)
		f.synced = maps.Clone(f.names)
	case rename:
		from, to := d.folder(path.Dir(s.path)), d.folder(path.Dir(s.to))
		number := from.names[path.Base(s.path)]
		delete(from.names, path.Base(s.path))
		to.names[path.Base(s.to)] = number
	case remove:
		delete(d.folder(path.Dir(s.path)).names, path.Base(s.path))
	case mkdir:
		number := root - len(d.folders)
		d.folders[number] = newFolder()
		d.folder(path.Dir(s.path)).names[path.Base(s.path)] = number
	}
}

// way is one of the ways in which a crash leaves a folder.
type way struct {
	name string
	// synced: only the names are there that folders were synced with. chosen tells which
	// of a file's pending changes are.
	synced bool
	chosen func(random *rand.Rand) func(i int) bool
}

var (
	all  = func(*rand.Rand) func(int) bool { return func(int) bool { return true } }
	none = func(*rand.Rand) func(int) bool { return func(int) bool { return false } }
	some = func(random *rand.Rand) func(int) bool { return func(int) bool { return random.IntN(2) == 0 } }
)

var ways = []way{
	{"the process is killed", false, all},
	{"the power goes: nothing but what was synced is there", true, none},
	{"the power goes: names are there, what was written isn't", false, none},
	{"the power goes: what was written is there, names aren't", true, all},
	{"the power goes: some of what was written is there", false, some},
}

// Crash is one state in which a folder can be found.
type Crash struct {
	// Dir has it.
	Dir string
	// Way and After say how it came about.
	Way, After string
	// Acked is everything that was acknowledged before, in order.
	Acked []string
}

func (c Crash) String() string { return c.Way + ", after " + c.After }

// Each makes every state that a crash can leave and hands it to check, beginning
// with the state after the run's first Ack; a write is also torn in the middle. It
// returns how many there were.
func (trace *Trace) Each(t *testing.T, check func(c Crash)) int {
	t.Helper()
	d, random := newDisk(), rand.New(rand.NewPCG(1, 2))
	var acked []string
	dir := filepath.Join(room(t), "crashed")
	count := 0
	try := func(w way, after string) {
		if len(acked) == 0 {
			return
		}
		if err := d.restore(dir, w, random); err != nil {
			t.Fatal(err)
		}
		count++
		check(Crash{Dir: dir, Way: w.name, After: after, Acked: append([]string(nil), acked...)})
	}
	for i, s := range trace.steps {
		if s.kind == ack {
			acked = append(acked, s.path)
			continue
		}
		after := fmt.Sprintf("step %d (%s)", i, trace.describe(s))
		if s.kind == write && len(s.data) > 1 {
			// Its file is as it was again afterwards.
			f := *d.files[s.file]
			half := s
			half.data = s.data[:len(s.data)/2]
			d.do(half)
			try(ways[0], "the first half of "+after)
			d.files[s.file] = &f
		}
		d.do(s)
		for _, w := range ways {
			try(w, after)
		}
	}
	return count
}

// room is where to make the states: in memory, where that can be, since there are
// many and each is synced.
func room(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "crashtest-*")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func (trace *Trace) describe(s step) string {
	switch s.kind {
	case write, truncate, syncFile:
		return fmt.Sprintf("%s %s at %d, %d bytes", s.kind, trace.paths[s.file], s.at, len(s.data))
	}
	return strings.TrimSpace(fmt.Sprintf("%s %s %s", s.kind, s.path, s.to))
}

// restore makes the folder as it would be found.
func (d *disk) restore(dir string, w way, random *rand.Rand) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	return d.restoreFolder(root, dir, w, random)
}

func (d *disk) restoreFolder(number int, dir string, w way, random *rand.Rand) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	names := d.folders[number].names
	if w.synced {
		names = d.folders[number].synced
	}
	for name, number := range names {
		path := filepath.Join(dir, name)
		var err error
		if number < 0 {
			err = d.restoreFolder(number, path, w, random)
		} else {
			err = os.WriteFile(path, d.files[number].with(w.chosen(random)), 0o600)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
