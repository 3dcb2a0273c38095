package main

import (
	"bytes"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
)

// file is one of a package: a directory when it has neither a body nor a link.
type file struct {
	path    string // without the first slash
	mode    int64
	body    []byte
	link    string
	config  bool // whoever looks after the machine may change it, and keeps that over upgrades
	licence bool
}

func (f file) dir() bool { return f.body == nil && f.link == "" }

const (
	bashCompletion = "usr/share/bash-completion/completions/skep"
	zshCompletion  = "usr/share/zsh/vendor-completions/_skep" // Debian's; rpm's are in zshSite
	zshSite        = "usr/share/zsh/site-functions/_skep"
	fishCompletion = "usr/share/fish/vendor_completions.d/skep.fish"

	unitPath        = "usr/lib/systemd/system/skep.service"
	needrestartPath = "etc/needrestart/conf.d/skep.conf"
	docs            = "usr/share/doc/skep/"
	prometheus      = "usr/share/skep/prometheus/"
)

// contents are the files of a package: the binary and what it says of itself, and what lies in the source.
func (s *source) contents(binary, notices []byte, documents map[string][]byte) ([]file, error) {
	files := []file{
		{path: "usr/bin/skep", mode: 0o755, body: binary},
		// Docker finds its plugins here, on Debian and elsewhere.
		{path: "usr/libexec/docker/cli-plugins/docker-skep", mode: 0o777, link: "../../../bin/skep"},
		{path: docs + "NOTICES.gz", mode: 0o644, body: compressed(notices), licence: true},
	}
	for name, body := range documents {
		files = append(files, file{path: name, mode: 0o644, body: body})
	}
	for _, f := range []struct {
		from string
		file
		change func([]byte) ([]byte, error)
	}{
		{from: "cmd/skep/skep.service", file: file{path: unitPath}, change: packagedUnit},
		{from: "cmd/pack/files/default", file: file{path: "etc/default/skep", config: true}},
		{from: "cmd/pack/files/needrestart.conf", file: file{path: needrestartPath, config: true}},
		{from: "cmd/pack/files/sysusers.conf", file: file{path: "usr/lib/sysusers.d/skep.conf"}},
		{from: "cmd/skep/prometheus/skep.rules.yml", file: file{path: prometheus + "skep.rules.yml"}},
		{from: "cmd/skep/prometheus/scrape.yml", file: file{path: prometheus + "scrape.yml"}},
		{from: "cmd/skep/prometheus/dashboard.json", file: file{path: prometheus + "dashboard.json"}},
		{from: "cmd/pack/files/copyright", file: file{path: docs + "copyright", licence: true}},
		{from: "LICENSE", file: file{path: docs + "LICENSE", licence: true}},
		{from: "CHANGELOG.md", file: file{path: docs + "CHANGELOG.md"}},
		{from: "README.md", file: file{path: docs + "README.md.gz"}, change: func(text []byte) ([]byte, error) { return compressed(text), nil }},
	} {
		body, err := s.read(f.from)
		if err == nil && f.change != nil {
			body, err = f.change(body)
		}
		if err != nil {
			return nil, err
		}
		f.mode, f.body = 0o644, body
		files = append(files, f.file)
	}
	return sorted(files), nil
}

// packagedUnit is the unit of the README for a package: the binary is where packages have theirs, and the
// socket is for the group that the package brings. systemd's Group= would do that, too, but it would also give root
// and the group all that lies below /run/skep when the unit of a node changes: among that, secrets in use.
func packagedUnit(unit []byte) ([]byte, error) {
	from, to := []byte("\nExecStart=/usr/local/bin/skep daemon $SKEP_OPTS\n"), []byte("\nExecStart=/usr/bin/skep daemon --group skep $SKEP_OPTS\n")
	if n := bytes.Count(unit, from); n != 1 {
		return nil, fmt.Errorf("make the package's unit: it has %q %d times", from, n)
	}
	return bytes.Replace(unit, from, to, 1), nil
}

// sorted are the files by their paths, each after the directories that it is in.
func sorted(files []file) []file {
	all := map[string]file{}
	for _, f := range files {
		all[f.path] = f
		for dir := path.Dir(f.path); dir != "."; dir = path.Dir(dir) {
			all[dir] = file{path: dir, mode: 0o755}
		}
	}
	return slices.SortedFunc(maps.Values(all), func(a, b file) int { return strings.Compare(a.path, b.path) })
}
