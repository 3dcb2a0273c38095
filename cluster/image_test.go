package cluster

import (
	"strings"
	"testing"

	"github.com/docker/docker/api/types/swarm"
)

func TestImages(t *testing.T) {
	digest := "sha256:" + strings.Repeat("ab", 32)
	for image, want := range map[string][3]string{ // tagged, digest, registry
		"app":                        {"docker.io/library/app:latest", "", "docker.io"},
		"app:1":                      {"docker.io/library/app:1", "", "docker.io"},
		"me/app:1@" + digest:         {"docker.io/me/app:1", digest, "docker.io"},
		"app@" + digest:              {"", digest, ""},
		"r.example.com:5000/a/app:1": {"r.example.com:5000/a/app:1", "", "r.example.com:5000"},
	} {
		tagged, found, err := SplitImage(image)
		if err != nil || tagged != want[0] || found != want[1] || ImageRegistry(tagged) != want[2] {
			t.Errorf("%s: %q, %q of %q, %v", image, tagged, found, ImageRegistry(tagged), err)
		}
		if tagged == "" {
			continue
		}
		pinned, err := PinImage(tagged, digest)
		if again, of, _ := SplitImage(pinned); err != nil || again != tagged || of != digest || strings.HasPrefix(pinned, "docker.io") {
			t.Errorf("%s of the digest: %q, %v", image, pinned, err)
		}
	}
	for _, image := range []string{"", "App:1", "app:", strings.Repeat("ab", 32), "app@sha256:1"} {
		if tagged, found, err := SplitImage(image); err == nil {
			t.Errorf("%q: %q, %q", image, tagged, found)
		}
	}
	for _, garbage := range []string{"", "sha256:1", "sha256:" + strings.Repeat("zz", 32), "md5:" + strings.Repeat("ab", 16), digest + "@" + digest, "\x00"} {
		if pinned, err := PinImage("docker.io/library/app:1", garbage); err == nil {
			t.Errorf("digest %q: %q", garbage, pinned)
		}
	}
}

// TestLeaveImage checks what a service remembers of the images that it left.
func TestLeaveImage(t *testing.T) {
	a, b, c := "sha256:"+strings.Repeat("a", 64), "sha256:"+strings.Repeat("b", 64), "sha256:"+strings.Repeat("c", 64)
	service := CreateService("s", watchedSpec("app:1@"+a), "").Service
	step := func(image string, want ...string) {
		t.Helper()
		spec := service.Spec
		if image != "" {
			spec = watchedSpec(image)
		} else {
			spec.Labels = nil
		}
		service = UpdateService(service, nil, nil, spec, "").Service
		if strings.Join(service.LeftImages, " ") != strings.Join(want, " ") {
			t.Errorf("%s: %q, want %q", image, service.LeftImages, want)
		}
	}
	step("app:1@" + a)
	step("app:1@"+b, a)
	step("app:1", a, b)
	step("app:1@"+a, a, b)
	step("app:1@"+c, b, a)
	step("docker.io/library/app:1@"+c, b, a)
	moved := MoveImage(service, nil, nil, "app:1@"+b, nil).Service
	if strings.Join(moved.LeftImages, " ") != b+" "+a {
		t.Errorf("after a move: %q", moved.LeftImages)
	}
	step("app:2@" + c)
	step("app:2@"+a, c)
	step("")
	for i := range 40 {
		service.Spec = watchedSpec("app:1@" + a[:len(a)-2] + string(rune('0'+i/10)) + string(rune('0'+i%10)))
		service = UpdateService(service, nil, nil, watchedSpec("app:1@"+b), "").Service
	}
	if n := len(service.LeftImages); n != maxLeftImages || !strings.HasSuffix(service.LeftImages[n-1], "39") {
		t.Errorf("%d are kept: %q", n, service.LeftImages)
	}
}

func watchedSpec(image string) swarm.ServiceSpec {
	return swarm.ServiceSpec{
		Annotations:  swarm.Annotations{Name: "web", Labels: map[string]string{LabelImageWatch.Name: "5m"}},
		TaskTemplate: swarm.TaskSpec{ContainerSpec: &swarm.ContainerSpec{Image: image}},
	}
}
