package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"time"
)

// image is a container image for one architecture: that of the Dockerfile, and the licences.
type image struct {
	arch   string
	layer  []byte // a tar file
	small  []byte // the layer, compressed
	config []byte
	ref    string
}

// imageConfig is the part of the OCI's image configuration that is used here, which is Docker's, too.
type imageConfig struct {
	Created      time.Time `json:"created"`
	Architecture string    `json:"architecture"`
	OS           string    `json:"os"`
	Config       struct {
		Entrypoint []string
		Cmd        []string
		Labels     map[string]string
	} `json:"config"`
	RootFS struct {
		Type    string   `json:"type"`
		DiffIDs []string `json:"diff_ids"`
	} `json:"rootfs"`
	History []imageHistory `json:"history"`
}

type imageHistory struct {
	Created   time.Time `json:"created"`
	CreatedBy string    `json:"created_by"`
}

func newImage(s *source, arch string, binary, notices, licence []byte) (*image, error) {
	layer, err := tarOf(sorted([]file{
		{path: "usr/bin/skep", mode: 0o755, body: binary},
		{path: docs + "LICENSE", mode: 0o644, body: licence},
		{path: docs + "NOTICES.gz", mode: 0o644, body: compressed(notices)},
	}), "", s.when)
	if err != nil {
		return nil, err
	}
	config := imageConfig{Created: s.when, Architecture: arch, OS: "linux", History: []imageHistory{{s.when, "cmd/pack"}}}
	config.Config.Entrypoint, config.Config.Cmd = []string{"/usr/bin/skep"}, []string{"daemon"}
	config.Config.Labels = map[string]string{
		"org.opencontainers.image.title": "skep", "org.opencontainers.image.version": s.version,
		"org.opencontainers.image.revision": s.commit, "org.opencontainers.image.licenses": "Apache-2.0",
	}
	config.RootFS.Type, config.RootFS.DiffIDs = "layers", []string{"sha256:" + digest(layer)}
	text, err := json.Marshal(config)
	return &image{arch: arch, layer: layer, small: compressedSoon(layer), config: text, ref: "skep:" + s.version}, err
}

// archive is the image as `docker load` of every engine takes it.
func (i *image) archive(when time.Time) ([]byte, error) {
	name := digest(i.config) + ".json"
	manifest, err := json.Marshal([]struct {
		Config           string
		RepoTags, Layers []string
	}{{name, []string{i.ref}, []string{"layer.tar"}}})
	if err != nil {
		return nil, err
	}
	whole, err := tarOf([]file{
		{path: name, mode: 0o644, body: i.config},
		{path: "layer.tar", mode: 0o644, body: i.layer},
		{path: "manifest.json", mode: 0o644, body: manifest},
	}, "", when)
	return compressedSoon(whole), err
}

// descriptor is how the OCI's files name each other.
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Platform    *platform         `json:"platform,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
}

const oci = "application/vnd.oci.image."

// layout is an OCI layout of one image for several architectures, as a tar file, which registries take by skopeo or
// crane, and engines from 25 on by `docker load`.
func layout(s *source, images []*image) ([]byte, error) {
	blobs := map[string][]byte{}
	keep := func(kind string, body []byte) descriptor {
		blobs[digest(body)] = body
		return descriptor{MediaType: oci + kind, Digest: "sha256:" + digest(body), Size: len(body)}
	}
	encoded := func(kind string, v any) (descriptor, error) {
		body, err := json.Marshal(v)
		return keep(kind, body), err
	}
	var manifests []descriptor
	for _, i := range images {
		d, err := encoded("manifest.v1+json", struct {
			SchemaVersion int          `json:"schemaVersion"`
			MediaType     string       `json:"mediaType"`
			Config        descriptor   `json:"config"`
			Layers        []descriptor `json:"layers"`
		}{2, oci + "manifest.v1+json", keep("config.v1+json", i.config), []descriptor{keep("layer.v1.tar+gzip", i.small)}})
		if err != nil {
			return nil, err
		}
		d.Platform = &platform{i.arch, "linux"}
		manifests = append(manifests, d)
	}
	type index struct {
		SchemaVersion int          `json:"schemaVersion"`
		MediaType     string       `json:"mediaType"`
		Manifests     []descriptor `json:"manifests"`
	}
	all, err := encoded("index.v1+json", index{2, oci + "index.v1+json", manifests})
	if err != nil {
		return nil, err
	}
	all.Annotations = map[string]string{
		"org.opencontainers.image.ref.name": s.version,
		"io.containerd.image.name":          "docker.io/library/" + images[0].ref,
	}
	top, err := json.Marshal(index{2, oci + "index.v1+json", []descriptor{all}})
	if err != nil {
		return nil, err
	}
	files := []file{
		{path: "oci-layout", mode: 0o644, body: []byte(`{"imageLayoutVersion":"1.0.0"}`)},
		{path: "index.json", mode: 0o644, body: top},
	}
	for name, body := range blobs {
		files = append(files, file{path: "blobs/sha256/" + name, mode: 0o644, body: body})
	}
	return tarOf(sorted(files), "", s.when)
}

func digest(body []byte) string { return fmt.Sprintf("%x", sha256.Sum256(body)) }
