package imagewatch

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/store"
)

// Question is what a registry is asked: which digest a tag names. Services with the same image
// and credentials share it.
type Question struct {
	// Image is a repository with a tag, in full; Auth the X-Registry-Auth value.
	Image, Auth string
}

// Answer is what a registry said last.
type Answer struct {
	// At is when it was asked.
	At time.Time
	// Digest is what the tag names, and Platforms what that is for.
	Digest    string
	Platforms []swarm.Platform
	// Problem is why that isn't known; empty when it is.
	Problem string
}

// Refusal is why an update couldn't be made, to which image, and of which version of the service.
type Refusal struct {
	Version       uint64
	Image, Reason string
	At            time.Time
}

// Input is what Plan goes by.
type Input struct {
	View store.View
	// Known are the answers, Asking the questions that are under way, and Refused the updates of services
	// that couldn't be made.
	Known   map[Question]Answer
	Asking  map[Question]bool
	Refused map[string]Refusal
	// Since is when this leader began to ask.
	Since, Now time.Time
}

// Due is what to do now.
type Due struct {
	// Ask are the questions that are due, the one that has been longest first.
	Ask []Question
	// Change are the services that are to be updated, or are to forget what they left.
	Change []string
	// Questions are all that services have, with the services' names.
	Questions map[Question][]string
	// Wake is when something more is due, if nothing changes.
	Wake time.Time
}

const (
	// wakeLatest is how far away the next look is at most: clocks can be set.
	wakeLatest = time.Minute
	// retryInWindow is when a registry is asked again that didn't tell, while a window is open.
	retryInWindow = time.Minute
)

// Plan says what is due.
func Plan(in Input) Due {
	type turn struct {
		every  time.Duration
		opened time.Time
	}
	plan := Due{Questions: map[Question][]string{}, Wake: in.Now.Add(wakeLatest)}
	wake := func(at time.Time) {
		if !at.IsZero() && at.Before(plan.Wake) {
			plan.Wake = at
		}
	}
	turns := map[Question]turn{}
	for service := range in.View.Services() {
		watched, ok := watchedOf(in.View, service)
		if !ok {
			continue
		}
		question, watch := watched.Question, watched.ImageWatch
		plan.Questions[question] = append(plan.Questions[question], service.Spec.Name)
		t, shared := turns[question]
		if !shared || watch.Every < t.every {
			t.every = watch.Every
		}
		if opened := watch.Windows.Open(in.Now); opened.After(t.opened) {
			t.opened = opened
		}
		turns[question] = t
		if watch.Windows != nil {
			wake(watch.Windows.Next(in.Now))
		}
		answer, known := in.Known[question]
		if !known {
			continue
		}
		d := watched.Decide(answer, in.Now)
		if refused, is := in.Refused[service.ID]; is && d.Image == refused.Image && service.Version == refused.Version && in.Now.Sub(refused.At) < watch.Every {
			wake(refused.At.Add(watch.Every))
			continue
		}
		if d.Image != "" || d.Forget {
			plan.Change = append(plan.Change, service.ID)
		}
	}
	due := map[Question]time.Time{}
	for question, t := range turns {
		if in.Asking[question] {
			continue
		}
		asked := in.Known[question].At
		if asked.After(in.Now) { // The clock was set back.
			asked = in.Now
		}
		at := nextTurn(question.Image, t.every, later(asked, in.Since))
		switch {
		case t.opened.After(asked): // An answer from before may be old by now.
			at = t.opened
		case !t.opened.IsZero() && in.Known[question].Problem != "": // The window won't stay open.
			at = asked.Add(min(t.every, retryInWindow))
		}
		if at.After(in.Now) {
			wake(at)
			continue
		}
		due[question] = at
		plan.Ask = append(plan.Ask, question)
	}
	slices.SortFunc(plan.Ask, func(a, b Question) int {
		return cmp.Or(due[a].Compare(due[b]), cmp.Compare(a.Image, b.Image), cmp.Compare(a.Auth, b.Auth))
	})
	return plan
}

// Watched is a service that is watched, with what is asked for it.
type Watched struct {
	Service *cluster.Service
	// Rollout is its last one; nil for none.
	Rollout *cluster.Rollout
	Question
	cluster.ImageWatch
	// Digest is that of its image now; empty for none.
	Digest string
}

// watchedOf is the service with all that belongs to it, if it is watched.
func watchedOf(view store.View, service *cluster.Service) (w Watched, ok bool) {
	w.Service = service
	if w.ImageWatch, ok = cluster.ImageWatchOf(service.Spec.Labels); !ok || service.Spec.TaskTemplate.ContainerSpec == nil || service.Job() {
		return w, false
	}
	var err error
	if w.Image, w.Digest, err = cluster.SplitImage(service.Spec.TaskTemplate.ContainerSpec.Image); err != nil || w.Image == "" {
		return w, false // The API doesn't let it in.
	}
	if current := view.Revision(service.ID, service.Revision); current != nil {
		w.Auth = current.Auth
	}
	w.Rollout = view.Rollout(service.ID)
	return w, true
}

// nextTurn is the first time after t that an image is asked for: each image has its own place in
// the span, which is the same for all leaders, so that neither a change of leader nor many services
// that were made at once bring many questions at once.
func nextTurn(image string, every time.Duration, t time.Time) time.Time {
	hash := fnv.New64a()
	hash.Write([]byte(image))
	place := time.Duration(hash.Sum64() % uint64(every))
	passed := time.Duration(t.UnixNano()-int64(place)) % every
	if passed < 0 {
		passed += every
	}
	return t.Add(every - passed)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// Decision is what to do about a service, with what is known of its tag.
type Decision struct {
	// Image is what the service is to be updated to; empty for nothing.
	Image     string
	Platforms []swarm.Platform
	// Forget is set when the service runs what its tag names, and so needn't know any more what it left.
	Forget bool
	// Waits is what an update waits for, or why there is none; empty when the service runs what its
	// tag names.
	Waits string
}

// Decide says what to do about the service.
func (w *Watched) Decide(answer Answer, now time.Time) (d Decision) {
	rolling := w.Rollout != nil && !w.Rollout.Done()
	opened := w.Windows.Open(now)
	switch {
	case answer.Problem != "" || answer.Digest == "":
	case w.Digest == answer.Digest:
		d.Forget = !rolling && len(w.Service.LeftImages) > 0
	case slices.Contains(w.Service.LeftImages, answer.Digest):
		name, _, _ := strings.Cut(w.Service.Spec.TaskTemplate.ContainerSpec.Image, "@")
		d.Waits = fmt.Sprintf("the service was taken back from that, so it isn't tried again until the tag names another; `skep service update --image %s %s` tries it", name, w.Service.Spec.Name)
	case rolling && w.Rollout.Paused():
		d.Waits = "it waits until the update that is paused is resumed or rolled back"
	case rolling:
		d.Waits = "it waits for the end of the update that is under way"
	case w.Windows != nil && opened.IsZero():
		d.Waits = "it waits for the window, which opens at " + w.Windows.Next(now).UTC().Format(time.RFC3339)
	case w.Windows != nil && answer.At.Before(opened):
		d.Waits = "the window is open, and the registry is about to be asked again"
	default:
		image, err := cluster.PinImage(w.Image, answer.Digest)
		if err != nil {
			d.Waits = err.Error()
			return d
		}
		d.Image, d.Platforms = image, answer.Platforms
	}
	return d
}
