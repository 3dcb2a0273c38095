package main

import (
	"bytes"
	"crypto/md5"
	"fmt"
	"slices"
	"strings"
	"time"
)

// about is what packages say of themselves.
const (
	maintainer  = "The authors of skep <skep@localhost>"
	summary     = "cluster of Docker Engines with Docker Swarm's API and its own managers"
	description = `skep does what Docker Swarm mode does, on machines that run a Docker
Engine, with its own managers. It speaks the Docker Engine API, so the
docker command, compose files and Docker's SDKs work with it unchanged.`
)

// deb is a package for dpkg: an ar archive of the format's version, a tar file of what dpkg needs to know, and one of the
// files.
func deb(s *source, arch string, files []file, scripts map[string][]byte) ([]byte, error) {
	// Debian's form of a changelog names the package; what changed is in CHANGELOG.md.
	log := fmt.Sprintf("skep (%s) unstable; urgency=medium\n\n  * See CHANGELOG.md.\n\n -- %s  %s\n", s.pkg, maintainer, s.when.Format(time.RFC1123Z))
	files = sorted(append(slices.Clone(files), file{path: docs + "changelog.gz", mode: 0o644, body: compressed([]byte(log))}))
	var conffiles, sums strings.Builder
	size := 0
	for _, f := range files {
		if f.config {
			fmt.Fprintf(&conffiles, "/%s\n", f.path)
		}
		if f.body != nil {
			fmt.Fprintf(&sums, "%x  %s\n", md5.Sum(f.body), f.path)
		}
		size += (len(f.body) + 1023) / 1024
	}
	control := fmt.Sprintf(`Package: skep
Version: %s
Architecture: %s
Maintainer: %s
Installed-Size: %d
Section: admin
Priority: optional
Depends: systemd | systemd-standalone-sysusers | systemd-sysusers
Recommends: docker.io | docker-ce | moby-engine
Description: %s
 %s
`, s.pkg, arch, maintainer, size, summary, strings.ReplaceAll(description, "\n", "\n "))
	know := []file{
		{path: "control", mode: 0o644, body: []byte(control)},
		{path: "conffiles", mode: 0o644, body: []byte(conffiles.String())},
		{path: "md5sums", mode: 0o644, body: []byte(sums.String())},
	}
	for name, script := range scripts {
		know = append(know, file{path: name, mode: 0o755, body: script})
	}
	controlTar, err := tarOf(sorted(know), "./", s.when)
	if err != nil {
		return nil, err
	}
	dataTar, err := tarOf(files, "./", s.when)
	if err != nil {
		return nil, err
	}
	return ar(s.when, []member{
		{"debian-binary", []byte("2.0\n")},
		{"control.tar.gz", compressed(controlTar)},
		{"data.tar.gz", compressedSoon(dataTar)},
	}), nil
}

type member struct {
	name string
	body []byte
}

// ar is an archive in the format of ar(5), in which each member begins at an even place.
func ar(when time.Time, members []member) []byte {
	b := bytes.NewBufferString("!<arch>\n")
	for _, m := range members {
		fmt.Fprintf(b, "%-16s%-12d%-6d%-6d%-8o%-10d`\n", m.name, when.Unix(), 0, 0, 0o100644, len(m.body))
		b.Write(m.body)
		if len(m.body)%2 == 1 {
			b.WriteByte('\n')
		}
	}
	return b.Bytes()
}
