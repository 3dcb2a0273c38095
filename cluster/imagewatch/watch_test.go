package imagewatch

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types/registry"
	"github.com/hashicorp/raft"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"skep/cluster"
	"skep/store"
)

// instantRaft commits each entry at once.
type instantRaft struct {
	fsm   raft.FSM
	mu    sync.Mutex
	index uint64
}

type future struct {
	response any
	index    uint64
}

func (f future) Error() error  { return nil }
func (f future) Response() any { return f.response }
func (f future) Index() uint64 { return f.index }

func (r *instantRaft) Apply(data []byte, _ time.Duration) raft.ApplyFuture {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.index++
	return future{r.fsm.Apply(&raft.Log{Index: r.index, Term: 1, Data: data}), r.index}
}

func (r *instantRaft) Barrier(time.Duration) raft.Future { return future{} }

// fakeRegistry says what tags name.
type fakeRegistry struct {
	mu    sync.Mutex
	names map[string]string // digests by image
	fails map[string]error
	// slow is how long an answer takes.
	slow time.Duration
	// hangs is the image of which it tells nothing.
	hangs string
	// asked are the questions, at what second of the test, and most is how many were under way at once.
	asked         []string
	at            []time.Time
	running, most int
}

func (f *fakeRegistry) ask(ctx context.Context, image, auth string) (found registry.DistributionInspect, err error) {
	f.mu.Lock()
	f.asked, f.at = append(f.asked, image+" "+auth), append(f.at, time.Now())
	f.running++
	f.most = max(f.most, f.running)
	slow, name, fails := f.slow, f.names[image], f.fails[image]
	if f.hangs == image {
		slow = time.Hour
	}
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.running--
	}()
	if !cluster.Sleep(ctx, slow) {
		return found, ctx.Err()
	}
	found.Descriptor.Digest = digest.Digest(name)
	found.Platforms = []ocispec.Platform{{Architecture: "arm", OS: "linux", Variant: "v7"}, {Architecture: "amd64", OS: "linux"}}
	return found, fails
}

// take gives the questions since the last time.
func (f *fakeRegistry) take() (asked []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	asked, f.asked, f.at = f.asked, nil, nil
	return asked
}

func (f *fakeRegistry) set(image string, n int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.names[image], f.fails[image] = sha(n), err
}

// world is a leader that watches.
type world struct {
	t        *testing.T
	db       *store.Store
	registry *fakeRegistry
	watcher  *Watcher
	refuse   error
	log      strings.Builder
	stop     func()
}

// watching runs do in a bubble beside a leader that watches.
func watching(t *testing.T, do func(w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, registry: &fakeRegistry{names: map[string]string{}, fails: map[string]error{}}}
		w.db = store.New(store.Config{Now: time.Now, Fatal: func(err error) { t.Errorf("store: %v", err) }})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- w.db.Lead(ctx, &instantRaft{fsm: w.db.FSM()}, nil) }()
		synctest.Wait()
		w.write(func(tx *store.Tx) error { return tx.Put(&cluster.Cluster{ID: "c"}) })
		w.lead()
		do(w)
		w.stop()
		cancel()
		<-ended
	})
}

// lead makes the next leader.
func (w *world) lead() {
	w.watcher = New(Config{Ask: w.registry.ask, Log: slog.New(slog.NewTextHandler(&w.log, nil)), Write: func(tx *store.Tx, old *cluster.Service, change cluster.Change) error {
		if w.refuse != nil {
			return w.refuse
		}
		return put(tx, change)
	}})
	ctx, cancel := context.WithCancel(w.t.Context())
	ended := make(chan error)
	go func() { ended <- w.watcher.Run(ctx, w.db) }()
	w.stop = func() { cancel(); <-ended }
}

func put(tx *store.Tx, change cluster.Change) error {
	if change.Revision != nil {
		if err := tx.Put(change.Revision); err != nil {
			return err
		}
	}
	return tx.Put(change.Service)
}

func (w *world) write(fn func(*store.Tx) error) {
	w.t.Helper()
	if err := w.db.Update(w.t.Context(), fn); err != nil {
		w.t.Fatal(err)
	}
}

// service makes a service of the image with labels "name=value".
func (w *world) service(id, image, auth string, labels ...string) {
	w.t.Helper()
	all := map[string]string{}
	for _, label := range labels {
		name, value, _ := strings.Cut(label, "=")
		all[name] = value
	}
	spec := specOf(image, all)
	spec.Name = id
	w.write(func(tx *store.Tx) error { return put(tx, cluster.CreateService(id, spec, auth)) })
}

func (w *world) image(id string) string {
	return w.db.View().Service(id).Spec.TaskTemplate.ContainerSpec.Image
}

func (w *world) state(id string) *cluster.ImageWatchState {
	return w.watcher.State(w.db.View(), w.db.View().Service(id), w.db.Now())
}

const every5m = "skep.image.watch=5m"

func TestWatcher_MovesAService(t *testing.T) {
	watching(t, func(w *world) {
		w.registry.set("docker.io/library/app:1", 1, nil)
		w.service("web", "app:1@"+sha(1), "credentials", every5m)
		index := w.db.View().Index()
		time.Sleep(time.Hour)
		if w.db.View().Index() != index {
			t.Error("something was written though nothing changed")
		}
		if asked := w.registry.take(); len(asked) != 12 || asked[0] != "docker.io/library/app:1 credentials" {
			t.Errorf("in an hour it asked %q", asked)
		}
		if state := w.state("web"); state.Digest != sha(1) || state.Waits != "" || state.Problem != "" {
			t.Errorf("%+v", state)
		}
		w.registry.set("docker.io/library/app:1", 2, nil)
		time.Sleep(5*time.Minute + 2*time.Second)
		if got := w.image("web"); got != "app:1@"+sha(2) {
			t.Errorf("it runs %s", got)
		}
		r := w.db.View().Revision("web", 2)
		if r == nil || r.Auth != "credentials" || r.By != "image watch" || r.Message != "image moved: app:1 is sha256:000000000000 now" {
			t.Errorf("revision %+v", r)
		}
		if p := r.Spec.Placement.Platforms; len(p) != 2 || p[0].Architecture != "" || p[1].Architecture != "amd64" {
			t.Errorf("platforms %+v", p)
		}
		index = w.db.View().Index()
		time.Sleep(time.Hour)
		if w.db.View().Index() != index {
			t.Error("something was written though nothing changed any more")
		}
	})
}

// TestWatcher_AsksWithinItsLimits has many images of a registry that doesn't answer, then of one that
// does, and leaders that change.
func TestWatcher_AsksWithinItsLimits(t *testing.T) {
	watching(t, func(w *world) {
		for i := range 200 {
			image := fmt.Sprintf("app%d:1", i)
			w.registry.set("docker.io/library/"+image, 1, nil)
			w.service(fmt.Sprint("s", i), image+"@"+sha(1), "", "skep.image.watch=1m")
		}
		for range 30 { // One image of many services.
			w.service(fmt.Sprint("same", len(slices.Collect(w.db.View().Services()))), "app0:1@"+sha(1), "", "skep.image.watch=1m")
		}
		w.registry.slow = time.Hour
		w.registry.take()
		time.Sleep(time.Minute)
		w.registry.take()
		for range 5 {
			time.Sleep(time.Minute)
			if asked := w.registry.take(); len(asked) < 40 || len(asked) > 60 {
				t.Errorf("%d questions in a minute to a registry that doesn't answer", len(asked))
			}
		}
		if w.registry.most != 4 {
			t.Errorf("%d questions at once", w.registry.most)
		}
		w.registry.slow = 0
		for range 3 { // leaders
			w.stop()
			w.registry.take()
			w.lead()
			seen := map[string]int{}
			for range 20 {
				time.Sleep(10 * time.Second)
				asked := w.registry.take()
				if len(asked) > 11 {
					t.Errorf("%d questions in 10 s", len(asked))
				}
				for _, q := range asked {
					seen[q]++
				}
			}
			if len(seen) < 190 {
				t.Errorf("in 200 s it asked for %d of 200 images", len(seen))
			}
			for q, n := range seen {
				if n > 2 {
					t.Errorf("%s was asked for %d times", q, n)
				}
			}
		}
		if index := w.db.View().Index(); index != 231 {
			t.Errorf("%d writes", index)
		}
	})
}

func TestWatcher_SaysWhatItIsNotTold(t *testing.T) {
	const password = "canary-pass"
	auth := base64.URLEncoding.EncodeToString([]byte(`{"username":"lab","password":"` + password + `"}`))
	basic := base64.StdEncoding.EncodeToString([]byte("lab:" + password))
	watching(t, func(w *world) {
		w.service("web", "r.example.com/app:1@"+sha(1), auth, every5m)
		w.service("other", "app:1@"+sha(1), "", every5m)
		w.registry.set("docker.io/library/app:1", 1, nil)
		check := func(what string, set func(), want string) {
			t.Helper()
			set()
			time.Sleep(5*time.Minute + 8*time.Second)
			state := w.state("web")
			if !strings.Contains(state.Problem, want) || state.Digest != "" {
				t.Errorf("%s: %+v, want %q", what, state, want)
			}
			if problems := w.watcher.Problems(w.db.View(), w.db.Now()); len(problems) != 1 || !strings.Contains(problems[0], "service web") || !strings.Contains(problems[0], want) {
				t.Errorf("%s: problems %q", what, problems)
			}
			if w.image("web") != "r.example.com/app:1@"+sha(1) {
				t.Errorf("%s: it runs %s", what, w.image("web"))
			}
		}
		fail := func(text string) func() {
			return func() { w.registry.set("r.example.com/app:1", 2, errors.New(text)) }
		}
		check("a wrong password", fail("unauthorized:\nauthentication required"), "unauthorized: authentication required")
		check("one that is repeated", fail("no user for Authorization: Basic "+basic+", "+password+" isn't it: "+auth), "no user for Authorization: Basic ***, *** isn't it: ***")
		check("much text", fail(strings.Repeat("ä", 1000)), "…")
		check("no digest", func() {
			w.registry.names["r.example.com/app:1"], w.registry.fails["r.example.com/app:1"] = "", nil
		}, "the registry's answer makes no sense")
		check("another text", func() { w.registry.names["r.example.com/app:1"] = "sha256:zzzz" }, "the registry's answer makes no sense")
		check("silence", func() { w.registry.hangs = "r.example.com/app:1" }, "didn't answer within 5s")
		w.registry.hangs = ""
		w.registry.set("r.example.com/app:1", 1, nil)
		time.Sleep(6 * time.Minute)
		if state := w.state("web"); state.Problem != "" || state.Digest != sha(1) {
			t.Errorf("%+v", state)
		}
		log := w.log.String()
		if n, m := strings.Count(log, "doesn't tell which digest"), strings.Count(log, "tells the digests of tags again"); strings.Count(log, "r.example.com") < 2 || n > 2 || n != m {
			t.Errorf("the log has it %d times, and %d times that it is over:\n%s", n, m, log)
		}
		if all := log + fmt.Sprint(w.state("web")); strings.Contains(all, password) || strings.Contains(all, basic) || strings.Contains(all, auth) {
			t.Errorf("the password is in\n%s", all)
		}
	})
}

// TestWatcher_UpdatesInTheWindow finds a digest long before the window, by an answer that is old when it opens, and by
// a leader that comes while it is open.
func TestWatcher_UpdatesInTheWindow(t *testing.T) {
	for _, another := range []bool{false, true} {
		watching(t, func(w *world) {
			// A bubble begins on a Saturday, at midnight.
			w.registry.set("docker.io/library/app:1", 1, nil)
			w.service("web", "app:1@"+sha(1), "", "skep.image.watch=24h", "skep.image.watch.window=Sun 02:00-03:00")
			w.registry.set("docker.io/library/app:1", 2, nil)
			time.Sleep(25 * time.Hour)
			if state := w.state("web"); !strings.Contains(state.Waits, "opens at 2000-01-02T02:00:00Z") || w.image("web") != "app:1@"+sha(1) {
				t.Fatalf("%+v", state)
			}
			w.registry.set("docker.io/library/app:1", 3, nil)
			time.Sleep(58 * time.Minute)
			if another {
				w.stop()
				time.Sleep(4 * time.Minute)
				w.lead()
			}
			w.registry.fails["docker.io/library/app:1"] = errors.New("not yet")
			time.Sleep(3 * time.Minute)
			w.registry.set("docker.io/library/app:1", 3, nil)
			time.Sleep(2 * time.Minute)
			if got := w.image("web"); got != "app:1@"+sha(3) {
				t.Errorf("with another leader %v: it runs %s: %+v", another, got, w.state("web"))
			}
		})
	}
}

// TestWatcher_TakesNoForAnAnswer has an update that isn't allowed any more.
func TestWatcher_TakesNoForAnAnswer(t *testing.T) {
	watching(t, func(w *world) {
		w.refuse = errors.New("secret s is gone")
		w.registry.set("docker.io/library/app:1", 2, nil)
		w.service("web", "app:1@"+sha(1), "", every5m)
		index := w.db.View().Index()
		time.Sleep(time.Hour)
		if state := w.state("web"); state.Waits != "the service can't be updated to that: secret s is gone" {
			t.Errorf("%+v", state)
		}
		if n := strings.Count(w.log.String(), "secret s is gone"); n != 1 || w.db.View().Index() != index {
			t.Errorf("the log has it %d times, %d writes", n, w.db.View().Index()-index)
		}
		w.refuse = nil
		time.Sleep(6 * time.Minute)
		if got := w.image("web"); got != "app:1@"+sha(2) {
			t.Errorf("it runs %s", got)
		}
	})
}
