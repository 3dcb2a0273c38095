package cluster

import (
	"fmt"
	"strings"

	"github.com/distribution/reference"
	"github.com/docker/docker/api/types/registry"
	"github.com/docker/docker/api/types/swarm"
)

// SplitImage takes the name of an image apart. Tagged is the repository with the tag, in full as
// in docker.io/library/app:1, with the tag latest if neither tag nor digest is written, and empty if only
// a digest is; digest is empty if none is written.
func SplitImage(image string) (tagged, digest string, err error) {
	named, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return "", "", fmt.Errorf("read image %q: %w", image, err)
	}
	if d, ok := named.(reference.Digested); ok {
		digest = d.Digest().String()
	}
	named = reference.TagNameOnly(named) // It leaves one with a digest as it is.
	if t, ok := named.(reference.Tagged); ok {
		tagged = named.Name() + ":" + t.Tag()
	}
	return tagged, digest, nil
}

// PinImage is the name of the image that has a digest, as specs have it: app:1@sha256:….
func PinImage(tagged, digest string) (string, error) {
	named, err := reference.ParseNormalizedNamed(tagged + "@" + digest)
	if err != nil {
		return "", fmt.Errorf("read digest %.80q: %w", digest, err)
	}
	return reference.FamiliarString(named), nil
}

// ImageRegistry is the registry of an image that SplitImage gave.
func ImageRegistry(tagged string) string {
	domain, _, _ := strings.Cut(tagged, "/")
	return domain
}

// ImagePlatforms are the platforms that an image is for, as docker's client has them in specs.
func ImagePlatforms(found registry.DistributionInspect) (platforms []swarm.Platform) {
	for _, p := range found.Platforms {
		architecture := p.Architecture
		if strings.EqualFold(architecture, "arm") { // Its variants run on each other.
			architecture = ""
		}
		platforms = append(platforms, swarm.Platform{Architecture: architecture, OS: p.OS})
	}
	return platforms
}
