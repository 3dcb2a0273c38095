package cluster

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/docker/docker/api/types/swarm"
)

const (
	// minImageWatch is the least time between two questions about an image, and
	// maxImageWatch the longest.
	minImageWatch, maxImageWatch = 30 * time.Second, 7 * 24 * time.Hour
	// maxLeftImages bounds Service.LeftImages: the oldest go first.
	maxLeftImages = 16
)

// ImageWatch is what a service's labels say of looking after its image.
type ImageWatch struct {
	// Every is how often a registry is asked for the digest of the service's tag.
	Every time.Duration
	// Windows are when the service may be updated to another digest; nil means always.
	Windows Windows
}

// ImageWatchOf is what a service's labels say of looking after its image, if they do.
func ImageWatchOf(labels map[string]string) (w ImageWatch, ok bool) {
	if w.Every, ok = LabelImageWatch.Of(labels); !ok {
		return w, false
	}
	if windows, set := LabelImageWatchWindow.Of(labels); set {
		zone := time.UTC
		if named, set := LabelImageWatchZone.Of(labels); set {
			zone = named
		}
		w.Windows = windows.in(zone)
	}
	return w, true
}

func readImageWatch(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil || d < minImageWatch || d > maxImageWatch {
		return 0, wants(fmt.Sprintf("a duration such as 5m, from %s to %s", minImageWatch, maxImageWatch))
	}
	return d, nil
}

// CheckImageWatch refuses to look after an image that can't move, or of a service for which that
// has no meaning.
func CheckImageWatch(spec *swarm.ServiceSpec) error {
	if _, set := LabelImageWatch.Of(spec.Labels); !set {
		for _, name := range []string{LabelImageWatchWindow.Name, LabelImageWatchZone.Name} {
			if _, set := spec.Labels[name]; set {
				return Errorf(ErrInvalid, "label %s: it has no meaning without %s", name, LabelImageWatch.Name)
			}
		}
		return nil
	}
	if _, zone := spec.Labels[LabelImageWatchZone.Name]; zone && spec.Labels[LabelImageWatchWindow.Name] == "" {
		return Errorf(ErrInvalid, "label %s: it has no meaning without %s", LabelImageWatchZone.Name, LabelImageWatchWindow.Name)
	}
	if isJob(spec.Mode) {
		return Errorf(ErrInvalid, "label %s: an update of a job runs all of it anew: leave the label out, and update the job to another image by hand", LabelImageWatch.Name)
	}
	image := imageOf(spec)
	tagged, _, err := SplitImage(image)
	if err != nil {
		return Errorf(ErrInvalid, "label %s: %v", LabelImageWatch.Name, err)
	}
	if tagged == "" {
		return Errorf(ErrInvalid, "label %s: image %s is named by its digest only, which never moves: name it by a tag, such as app:1, or leave the label out", LabelImageWatch.Name, image)
	}
	return nil
}

func imageOf(spec *swarm.ServiceSpec) string {
	if spec.TaskTemplate.ContainerSpec == nil {
		return ""
	}
	return spec.TaskTemplate.ContainerSpec.Image
}

// MoveImage updates a service to another digest of its tag, since the tag moved: image is
// its name with the digest, and platforms are what it is for, nil to leave those of the spec. It is
// an update as a client would make it, but that the image that the service has now may come again.
func MoveImage(old *Service, current *Revision, rollout *Rollout, image string, platforms []swarm.Platform) Change {
	spec := old.Spec
	container := *spec.TaskTemplate.ContainerSpec
	container.Image = image
	spec.TaskTemplate.ContainerSpec = &container
	if len(platforms) > 0 {
		placement := swarm.Placement{}
		if spec.TaskTemplate.Placement != nil {
			placement = *spec.TaskTemplate.Placement
		}
		placement.Platforms = platforms
		spec.TaskTemplate.Placement = &placement
	}
	auth := ""
	if current != nil {
		auth = current.Auth
	}
	change := UpdateService(old, current, rollout, spec, auth)
	change.Service.LeftImages = old.LeftImages
	if r := change.Revision; r != nil && change.Service.Revision != old.Revision {
		tagged, digest, _ := SplitImage(image)
		r.By, r.Message = ImageWatcher, fmt.Sprintf("image moved: %s is %.19s now", tagged[strings.LastIndex(tagged, "/")+1:], digest)
	}
	return change
}

// ImageWatcher is who updates a service whose tag moved, as the history and the log say it.
const ImageWatcher = "image watch"

// leaveImage notes in next, which takes the place of old, the image that it leaves, so that it
// isn't brought back as long as its tag names that digest.
func leaveImage(old, next *Service) {
	_, watched := LabelImageWatch.Of(next.Spec.Labels)
	tagged, digest, err := SplitImage(imageOf(&old.Spec))
	nextTagged, nextDigest, nextErr := SplitImage(imageOf(&next.Spec))
	switch {
	case !watched || err != nil || nextErr != nil || tagged == "" || tagged != nextTagged:
		next.LeftImages = nil
	case digest != "" && digest != nextDigest:
		left := slices.DeleteFunc(slices.Clone(old.LeftImages), func(known string) bool { return known == digest })
		left = append(left, digest)
		next.LeftImages = left[max(0, len(left)-maxLeftImages):]
	}
}

// ImageWatchState is how looking after a service's image goes, as `skep service why` shows it.
type ImageWatchState struct {
	// Image is the tag that is asked for, Every and Window are as the labels have them, and Zone is the time zone.
	Image, Every string
	Window, Zone string `json:",omitempty"`
	// Asked is when the present leader asked last; zero for not yet. Digest is what the tag
	// named, and Problem why that isn't known.
	Asked   time.Time `json:",omitzero"`
	Digest  string    `json:",omitempty"`
	Problem string    `json:",omitempty"`
	// Waits is what an update to that digest waits for, or why there is none.
	Waits string `json:",omitempty"`
}

// String is the whole in words.
func (s *ImageWatchState) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Image watch: %s, every %s", s.Image, s.Every)
	if s.Window != "" {
		fmt.Fprintf(&b, ", updated in the window %s", s.Window)
		if s.Zone != "" {
			fmt.Fprintf(&b, " of %s", s.Zone)
		}
	}
	switch {
	case s.Asked.IsZero():
		b.WriteString("; the present leader hasn't asked yet")
	case s.Problem != "":
		fmt.Fprintf(&b, "; asked at %s: %s", s.Asked.UTC().Format(time.RFC3339), s.Problem)
	default:
		fmt.Fprintf(&b, "; asked at %s: it is %s", s.Asked.UTC().Format(time.RFC3339), s.Digest)
	}
	if s.Waits != "" {
		fmt.Fprintf(&b, "; %s", s.Waits)
	}
	return b.String() + "."
}
