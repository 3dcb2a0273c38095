package imagewatch

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/docker/docker/api/types/registry"

	"skep/cluster"
	"skep/store"
)

const (
	// maxAsking is how many questions are under way at most, and lookPause what is between two.
	maxAsking = 4
	lookPause = time.Second
	// askTimeout is how long a registry may take.
	askTimeout = 5 * time.Second
	// writeTimeout bounds the write of an update.
	writeTimeout = 10 * time.Second
	// maxProblem is how many bytes are kept of what a registry says, and maxPlatforms how many platforms
	// an image is for.
	maxProblem, maxPlatforms = 300, 100
	// complainAfter is how long a registry may not tell before the log says so.
	complainAfter = 10 * time.Second
)

// Config says what a Watcher works with. All is required.
type Config struct {
	// Ask asks a registry which digest a tag names now, until ctx ends. auth is an X-Registry-Auth value.
	Ask func(ctx context.Context, image, auth string) (registry.DistributionInspect, error)
	// Write writes an update of a service, unless it wouldn't be allowed or couldn't run.
	Write func(tx *store.Tx, old *cluster.Service, change cluster.Change) error
	Log   *slog.Logger
}

// Watcher looks after the images of services.
type Watcher struct {
	cfg Config

	mu      sync.Mutex // guards the fields below, which Run writes
	known   map[Question]Answer
	refused map[string]Refusal
}

// New makes a Watcher.
func New(cfg Config) *Watcher { return &Watcher{cfg: cfg} }

// answered is the answer to a question.
type answered struct {
	Question
	Answer
}

// Run asks and updates until ctx ends. It is to run on the leader only.
func (w *Watcher) Run(ctx context.Context, s *store.Store) error {
	w.reset()
	defer w.reset() // What it was told grows old.
	var asks sync.WaitGroup
	defer asks.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	changes := s.Subscribe()
	defer changes.Close()
	answers := make(chan answered, maxAsking)
	asking := map[Question]bool{}
	complaints := map[string]*cluster.Complaint{}
	take := func(a answered) {
		delete(asking, a.Question)
		w.learn(a)
	}
	for since := s.Now(); ; {
		for more := true; more; {
			select {
			case a := <-answers:
				take(a)
			default:
				more = false
			}
		}
		due := Plan(Input{View: s.View(), Known: w.known, Asking: asking, Refused: w.refused, Since: since, Now: s.Now()})
		w.keep(due.Questions)
		for _, id := range due.Change {
			w.change(ctx, s, id)
		}
		if len(due.Ask) > 0 && len(asking) < maxAsking {
			question := due.Ask[0]
			asking[question] = true
			asks.Go(func() {
				answers <- answered{question, w.ask(ctx, question, s.Now())}
			})
		}
		w.complain(complaints, due.Questions, s.Now)
		if !cluster.Sleep(ctx, lookPause) {
			return ctx.Err()
		}
		wait := due.Wake.Sub(s.Now())
		if len(due.Ask) > 1 && len(asking) < maxAsking {
			wait = 0
		}
		for waiting := true; waiting; {
			timer := time.NewTimer(max(wait, 0))
			select {
			case <-ctx.Done():
			case a := <-answers:
				take(a)
				waiting = false
			case <-timer.C:
				waiting = false
			case <-changes.Ready():
				waiting = !concerns(changes)
				wait = due.Wake.Sub(s.Now())
			}
			timer.Stop()
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
	}
}

// concerns tells whether anything changed that Plan goes by.
func concerns(changes *store.Subscription) bool {
	news, _, lost := changes.Take()
	return lost || slices.ContainsFunc(news, func(c store.Change) bool {
		object := c.After
		if object == nil {
			object = c.Before
		}
		switch object.(type) {
		case *cluster.Service, *cluster.Rollout, *cluster.Revision: // Credentials are in revisions.
			return true
		}
		return false
	})
}

func (w *Watcher) reset() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.known, w.refused = map[Question]Answer{}, map[string]Refusal{}
}

// keep forgets the answers that nobody needs any more.
func (w *Watcher) keep(questions map[Question][]string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	maps.DeleteFunc(w.known, func(q Question, _ Answer) bool { return questions[q] == nil })
}

func (w *Watcher) learn(a answered) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.known[a.Question] = a.Answer
}

// ask asks a question.
func (w *Watcher) ask(ctx context.Context, q Question, now time.Time) Answer {
	limited, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	answer := Answer{At: now}
	found, err := w.cfg.Ask(limited, q.Image, q.Auth)
	if err == nil {
		err = check(q, found)
	}
	switch {
	case limited.Err() != nil && ctx.Err() == nil:
		answer.Problem = fmt.Sprintf("the registry didn't answer within %s", askTimeout)
	case err != nil:
		answer.Problem = clean(err.Error(), q.Auth)
	default:
		answer.Digest, answer.Platforms = found.Descriptor.Digest.String(), cluster.ImagePlatforms(found)
	}
	return answer
}

// check refuses answers that make no sense.
func check(q Question, found registry.DistributionInspect) error {
	if _, err := cluster.PinImage(q.Image, found.Descriptor.Digest.String()); err != nil {
		return fmt.Errorf("the registry's answer makes no sense: %w", err)
	}
	if len(found.Platforms) > maxPlatforms {
		return fmt.Errorf("the registry's answer makes no sense: an image for %d platforms", len(found.Platforms))
	}
	return nil
}

// clean makes what a registry says one short line without the credentials, which it may repeat.
func clean(text, auth string) string {
	var config registry.AuthConfig
	if data, err := base64.URLEncoding.DecodeString(auth); err == nil && json.Unmarshal(data, &config) == nil {
		for _, secret := range []string{
			auth, config.Password, config.Auth, config.IdentityToken, config.RegistryToken,
			base64.StdEncoding.EncodeToString([]byte(config.Username + ":" + config.Password)),
		} {
			if secret != "" {
				text = strings.ReplaceAll(text, secret, "***")
			}
		}
	}
	text = strings.Map(func(c rune) rune {
		if !unicode.IsPrint(c) {
			return ' '
		}
		return c
	}, text)
	if len(text) > maxProblem {
		text = strings.ToValidUTF8(text[:maxProblem], "") + "…"
	}
	return text
}

// change does what is due about a service, as it is now.
func (w *Watcher) change(ctx context.Context, s *store.Store, id string) {
	ctx, cancel := context.WithTimeout(cluster.WithActor(ctx, cluster.ImageWatcher), writeTimeout)
	defer cancel()
	var refusal *Refusal
	err := s.Update(ctx, func(tx *store.Tx) error {
		refusal = nil
		service := tx.Service(id)
		if service == nil {
			return nil
		}
		watched, ok := watchedOf(tx.View, service)
		answer, known := w.known[watched.Question]
		if !ok || !known {
			return nil
		}
		d := watched.Decide(answer, tx.Now())
		switch {
		case d.Forget:
			next := *service
			next.LeftImages = nil
			return tx.Put(&next)
		case d.Image == "":
			return nil
		}
		moved := cluster.MoveImage(service, tx.Revision(id, service.Revision), watched.Rollout, d.Image, d.Platforms)
		if err := w.cfg.Write(tx, service, moved); err != nil {
			refusal = &Refusal{Version: service.Version, Image: d.Image, Reason: err.Error(), At: tx.Now()}
			return err
		}
		return nil
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	before, again := w.refused[id]
	switch {
	case err == nil:
		delete(w.refused, id)
	case refusal != nil:
		if w.refused[id] = *refusal; !again || before.Reason != refusal.Reason {
			w.cfg.Log.Warn("a service can't be updated to what its image's tag names", "service", id, "image", refusal.Image, "err", err)
		}
	case ctx.Err() == nil || errors.Is(ctx.Err(), context.DeadlineExceeded):
		w.cfg.Log.Debug("update a service whose image moved; trying again", "service", id, "err", err)
	}
}

// complain says in the log which registries don't tell, of each the first image.
func (w *Watcher) complain(complaints map[string]*cluster.Complaint, questions map[Question][]string, now func() time.Time) {
	wrong, asked := map[string]string{}, map[string]bool{}
	for question, services := range questions {
		answer, known := w.known[question]
		name := cluster.ImageRegistry(question.Image)
		asked[name] = asked[name] || known
		if answer.Problem == "" {
			continue
		}
		text := fmt.Sprintf("image %s of service %s: %s", question.Image, slices.Min(services), answer.Problem)
		if first := wrong[name]; first == "" || text < first {
			wrong[name] = text
		}
	}
	for name := range asked {
		if complaints[name] == nil {
			complaints[name] = &cluster.Complaint{Log: w.cfg.Log, Patience: complainAfter, Now: now}
		}
		var err error
		if wrong[name] != "" {
			err = errors.New(wrong[name])
		}
		complaints[name].About(err, "a registry doesn't tell which digest a tag names; services stay as they are, and it is asked again", "the registry tells the digests of tags again", "registry", name)
	}
	maps.DeleteFunc(complaints, func(name string, _ *cluster.Complaint) bool { _, is := asked[name]; return !is })
}

// State is how looking after a service's image goes; nil for a service that isn't watched.
func (w *Watcher) State(view store.View, service *cluster.Service, now time.Time) *cluster.ImageWatchState {
	watched, ok := watchedOf(view, service)
	if !ok {
		return nil
	}
	labels := service.Spec.Labels
	state := &cluster.ImageWatchState{
		Image: watched.Image, Every: labels[cluster.LabelImageWatch.Name],
		Window: labels[cluster.LabelImageWatchWindow.Name], Zone: labels[cluster.LabelImageWatchZone.Name],
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	answer, known := w.known[watched.Question]
	if !known {
		return state
	}
	state.Asked, state.Digest, state.Problem = answer.At.UTC(), answer.Digest, answer.Problem
	d := watched.Decide(answer, now)
	state.Waits = d.Waits
	if refused, is := w.refused[service.ID]; is && d.Image != "" && refused.Image == d.Image && refused.Version == service.Version {
		state.Waits = "the service can't be updated to that: " + refused.Reason
	}
	return state
}

// Problems are the watched services whose registry doesn't tell, or whose update is refused, with the reason.
func (w *Watcher) Problems(view store.View, now time.Time) (found []string) {
	for service := range view.Services() {
		if state := w.State(view, service, now); state != nil && state.Problem != "" {
			found = append(found, fmt.Sprintf("service %s: which digest %s is isn't known: %s", service.Spec.Name, state.Image, state.Problem))
		}
	}
	return found
}
