package main

import (
	"fmt"
	"regexp"
	"strings"
	"time"
)

// described is what `git describe --tags` says of a commit that isn't tagged: the last tag, how many
// commits ago that was, and the commit.
var described = regexp.MustCompile(`^(.+)-(\d+)-(g[0-9a-f]+)$`)

// release is a version as it may be tagged, without its v.
var release = regexp.MustCompile(`^\d+\.\d+\.\d+(-[0-9A-Za-z][0-9A-Za-z.-]*)?$`)

// packageVersion is a version for dpkg and rpm, for which "-" begins the packager's own part: 0.2.0-rc.1 is
// 0.2.0~rc.1, which both take for older than 0.2.0, and three commits after a tag are 0.2.0+3.g0123456789ab, which
// both take for newer than that and older than 0.2.1. A version of no tag has the commit's time.
func packageVersion(version string, tagged bool, commit string, when time.Time) (string, error) {
	after := ""
	if m := described.FindStringSubmatch(version); m != nil {
		version, after = m[1], "+"+m[2]+"."+m[3]
	}
	if !release.MatchString(version) {
		return "", fmt.Errorf("make a package of version %q: want MAJOR.MINOR.PATCH, or MAJOR.MINOR.PATCH-WORD", version)
	}
	if !tagged {
		after = "+" + when.UTC().Format("20060102150405") + ".g" + commit[:12]
	}
	version = strings.Replace(version, "-", "~", 1)
	return strings.ReplaceAll(version, "-", ".") + after, nil
}
