package main

import (
	"bytes"
	"strings"

	"github.com/google/rpmpack"
)

// rpm is a package for rpm.
func rpm(s *source, arch string, files []file, scripts map[string][]byte) ([]byte, error) {
	var requires, recommends rpmpack.Relations
	for _, r := range []string{"/bin/sh", "systemd"} {
		if err := requires.Set(r); err != nil {
			return nil, err
		}
	}
	// Alternatives are something that rpm must be new enough for, and is since 2014.
	requires = append(requires, &rpmpack.Relation{Name: "rpmlib(RichDependencies)", Version: "4.12.0-1", Sense: rpmpack.SenseRPMLIB | rpmpack.SenseLess | rpmpack.SenseEqual})
	if err := recommends.Set("(docker-ce or moby-engine or docker)"); err != nil {
		return nil, err
	}
	r, err := rpmpack.NewRPM(rpmpack.RPMMetaData{
		Name: "skep", Version: s.pkg, Release: "1", Arch: rpmArch(arch), Epoch: rpmpack.NoEpoch,
		Summary: summary, Description: description, Licence: "Apache-2.0", Packager: maintainer, BuildHost: "localhost", BuildTime: s.when,
		Requires: requires, Recommends: recommends, Compressor: "gzip:6",
	})
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		entry := rpmpack.RPMFile{Name: "/" + f.path, Body: f.body, Mode: uint(f.mode), Owner: "root", Group: "root", MTime: uint32(s.when.Unix())}
		switch {
		case f.path == needrestartPath: // Debian's.
			continue
		case f.path == zshCompletion:
			entry.Name = "/" + zshSite
		case f.link != "":
			entry.Mode, entry.Body = 0o120000|0o777, []byte(f.link)
		case f.dir() && !strings.Contains(f.path+"/", "/skep/"):
			continue // It is other packages', too.
		case f.dir():
			entry.Mode |= 0o40000
		}
		switch {
		case f.config:
			entry.Type = rpmpack.ConfigFile | rpmpack.NoReplaceFile
		case f.licence:
			entry.Type = rpmpack.LicenceFile
		}
		r.AddFile(entry)
	}
	r.AddPostin(string(scripts["postinst"]))
	r.AddPreun(string(scripts["prerm"]))
	r.AddPostun(string(scripts["postrm"]))
	var b bytes.Buffer
	err = r.Write(&b)
	return b.Bytes(), err
}

// rpmArch is rpm's word for an architecture.
func rpmArch(arch string) string {
	return map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[arch]
}
