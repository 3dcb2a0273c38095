package main

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"time"
)

// component is a part of a bill of materials in the words of CycloneDX 1.5.
type component struct {
	Type    string `json:"type"`
	Ref     string `json:"bom-ref"`
	Name    string `json:"name"`
	Version string `json:"version"`
	PURL    string `json:"purl,omitempty"`
	Hashes  []hash `json:"hashes,omitempty"`
}

type hash struct {
	Algorithm string `json:"alg"`
	Content   string `json:"content"`
}

type dependency struct {
	Ref string   `json:"ref"`
	On  []string `json:"dependsOn"`
}

// sbom says which modules are linked into a binary, as the Go tool noted it there.
func sbom(s *source, arch, path string, binary []byte) ([]byte, error) {
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read what the binary is made of: %w", err)
	}
	self := component{Type: "application", Ref: "skep", Name: "skep", Version: s.version, Hashes: []hash{{"SHA-256", digest(binary)}}}
	// Go's own library has advisories, too.
	parts := []component{library("std", strings.TrimPrefix(info.GoVersion, "go"), "")}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		parts = append(parts, library(m.Path, m.Version, m.Sum))
	}
	all := dependency{Ref: self.Ref}
	for _, p := range parts {
		all.On = append(all.On, p.Ref)
	}
	id := sha256.Sum256([]byte(s.commit + " " + s.pkg + " " + arch))
	id[6], id[8] = id[6]&0x0f|0x80, id[8]&0x3f|0x80 // RFC 9562: a UUID of version 8.
	text, err := json.MarshalIndent(struct {
		Format       string       `json:"bomFormat"`
		Spec         string       `json:"specVersion"`
		Serial       string       `json:"serialNumber"`
		Version      int          `json:"version"`
		Metadata     any          `json:"metadata"`
		Components   []component  `json:"components"`
		Dependencies []dependency `json:"dependencies"`
	}{
		"CycloneDX", "1.5", fmt.Sprintf("urn:uuid:%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:16]), 1,
		struct {
			Timestamp time.Time `json:"timestamp"`
			Component component `json:"component"`
		}{s.when, self}, parts, []dependency{all},
	}, "", "  ")
	return append(text, '\n'), err
}

// library is a Go module. Its hash is that of go.sum, which is SHA-256 of a list of the module's files.
func library(path, version, sum string) component {
	escape := func(s string) string { return strings.ReplaceAll(url.PathEscape(s), "+", "%2B") }
	var segments []string
	for _, s := range strings.Split(path, "/") {
		segments = append(segments, escape(s))
	}
	purl := "pkg:golang/" + strings.Join(segments, "/") + "@" + escape(version)
	c := component{Type: "library", Ref: purl, Name: path, Version: version, PURL: purl}
	if raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(sum, "h1:")); err == nil && len(raw) == sha256.Size {
		c.Hashes = []hash{{"SHA-256", hex.EncodeToString(raw)}}
	}
	return c
}
