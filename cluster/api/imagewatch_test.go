package api

import (
	"strings"
	"testing"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

func TestImageWatch_IsChecked(t *testing.T) {
	b := newBench(t)
	digest := "sha256:" + strings.Repeat("ab", 32)
	n := 0
	create := func(image string, edit func(*swarm.ServiceSpec), labels ...string) answer {
		n++
		return b.do("POST", "/services/create", spec("s"+strings.Repeat("x", n), func(s *swarm.ServiceSpec) {
			s.TaskTemplate.ContainerSpec.Image = image
			s.Labels = map[string]string{}
			for _, label := range labels {
				name, value, _ := strings.Cut(label, "=")
				s.Labels["skep.image.watch"+name] = value
			}
			if edit != nil {
				edit(s)
			}
		}))
	}
	create("app:1", nil, "=5m", ".window=Sat 02:00-05:00", ".tz=Europe/Berlin").want(t, 201, "")
	create("app:1@"+digest, nil, "=30s").want(t, 201, "")
	create("app", nil, "=1h").want(t, 201, "")
	create("app:1", nil, "=29s").want(t, 400, "won't do, it takes a duration such as 5m, from 30s to 168h0m0s")
	create("app:1", nil, "=often").want(t, 400, "won't do")
	create("app:1", nil, "=5m", ".window=Sad 02:00-05:00").want(t, 400, "days and hours such as")
	create("app:1", nil, "=5m", ".window=02:00-02:00").want(t, 400, "close at another time")
	create("app:1", nil, "=5m", ".window=02:00-03:00", ".tz=Mars").want(t, 400, "the name of a time zone")
	create("app:1", nil, "=5m", ".tz=Europe/Berlin").want(t, 400, "it has no meaning without skep.image.watch.window")
	create("app:1", nil, ".window=02:00-03:00").want(t, 400, "it has no meaning without skep.image.watch")
	create("app@"+digest, nil, "=5m").want(t, 400, "named by its digest only, which never moves: name it by a tag, such as app:1, or leave the label out")
	one := uint64(1)
	create("app:1", func(s *swarm.ServiceSpec) {
		s.Mode = swarm.ServiceMode{ReplicatedJob: &swarm.ReplicatedJob{MaxConcurrent: &one, TotalCompletions: &one}}
		s.UpdateConfig, s.RollbackConfig, s.TaskTemplate.RestartPolicy = nil, nil, nil
	}, "=5m").want(t, 400, "an update of a job runs all of it anew: leave the label out")
}

// TestWhy_OfAWatchedImage explains a service whose image isn't asked for yet.
func TestWhy_OfAWatchedImage(t *testing.T) {
	b := newBench(t)
	b.create(spec("web", func(s *swarm.ServiceSpec) { s.Labels["skep.image.watch"] = "5m" }))
	var why cluster.Why
	b.do("GET", "/skep/v1/services/web/why", nil).want(t, 200, "").into(t, &why)
	if text := why.String(); !strings.Contains(text, "\nImage watch: docker.io/library/timecheck:1.0, every 5m; the present leader hasn't asked yet.\n") {
		t.Error(text)
	}
}
