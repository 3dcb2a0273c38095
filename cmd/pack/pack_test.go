package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"debug/elf"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestPackages makes everything of the working tree twice, as of one commit: in one place, and in a
// clone elsewhere by somebody whose environment is another one.
func TestPackages(t *testing.T) {
	if testing.Short() {
		t.Skip("it links the binary four times")
	}
	first, clone := filepath.Join(t.TempDir(), "first"), filepath.Join(t.TempDir(), "far", "away")
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := checkout(t.Context(), root, first, true, ""); err != nil {
		t.Fatal(err)
	}
	made := packed(t, "-C", first)

	if _, err := run(t.Context(), "", nil, "git", "clone", "-q", first, clone); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(clone, "cmd/skep/untracked.go"), "package main\n\nfunc init() { panic(0) }\n")
	write(t, filepath.Join(clone, "LICENSE"), "changed and not committed")
	// The Go tool's caches stay where they are: they are no part of what is made.
	for _, name := range []string{"GOPATH", "GOMODCACHE", "GOCACHE"} {
		out, err := exec.Command("go", "env", name).Output()
		if err != nil {
			t.Fatal(err)
		}
		t.Setenv(name, strings.TrimSpace(string(out)))
	}
	for name, value := range map[string]string{
		"HOME": t.TempDir(), "TZ": "Asia/Kathmandu", "LANG": "de_DE.UTF-8", "GOFLAGS": "-buildvcs=false", "GOAMD64": "v2", "GOARCH": "arm64",
		"DOCKER_CONFIG": "/elsewhere", "SKEP_HOST": "tcp://192.0.2.1:1", "GIT_DIR": "/nowhere", "COLUMNS": "40",
	} {
		t.Setenv(name, value)
	}
	defer syscall.Umask(syscall.Umask(0o077))
	again := packed(t, "-C", filepath.Join(clone, "cmd"))
	if got, want := slices.Sorted(maps.Keys(again)), slices.Sorted(maps.Keys(made)); !slices.Equal(got, want) {
		t.Fatalf("made %v, and then %v", want, got)
	}
	for name, content := range made {
		if !bytes.Equal(content, again[name]) {
			t.Errorf("%s isn't the same twice", name)
		}
	}
	// What each of them is; the environment is of no matter there, either.
	dir := t.TempDir()
	for name, content := range made {
		write(t, filepath.Join(dir, name), string(content))
	}
	for _, arch := range architectures {
		name := func(pattern string) string {
			found, err := filepath.Glob(filepath.Join(dir, pattern))
			if err != nil || len(found) != 1 {
				t.Fatalf("%s: %v, %v", pattern, found, err)
			}
			return found[0]
		}
		t.Run(arch, func(t *testing.T) {
			isADeb(t, name("skep_*_"+arch+".deb"), arch)
			isAnRPM(t, name("skep-*."+rpmArch(arch)+".rpm"))
			isABill(t, name("skep_*_"+arch+".cdx.json"))
			if arch == runtime.GOARCH {
				runs(t, name("skep_*_"+arch+".image.tar.gz"))
			}
		})
	}
	isALayout(t, made)
	sums := exec.Command("sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS")
	sums.Dir = dir
	if out, err := sums.CombinedOutput(); err != nil || bytes.Count(made["SHA256SUMS"], []byte("\n")) != len(made)-1 {
		t.Errorf("SHA256SUMS: %v\n%s%s", err, out, made["SHA256SUMS"])
	}
}

// packed are the files that the command makes.
func packed(t *testing.T, args ...string) map[string][]byte {
	t.Helper()
	begin, dir := time.Now(), t.TempDir()
	if err := pack(t.Context(), append(args, "-out", dir)); err != nil {
		t.Fatal(err)
	}
	made := map[string][]byte{}
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range list {
		if made[entry.Name()], err = os.ReadFile(filepath.Join(dir, entry.Name())); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("made %d files in %v", len(made), time.Since(begin).Round(100*time.Millisecond))
	return made
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// tool runs a program that needn't be there, and wants it to succeed; without it nothing is looked at.
func tool(t *testing.T, args ...string) (out string, there bool) {
	t.Helper()
	if _, err := exec.LookPath(args[0]); err != nil {
		t.Logf("there is no %s to ask", args[0])
		return "", false
	}
	said, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Errorf("%s: %v\n%s", strings.Join(args, " "), err, said)
	}
	return string(said), true
}

// isADeb reads a package as the format says, and has Debian's tools read it.
func isADeb(t *testing.T, path, arch string) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	rest, found := bytes.CutPrefix(raw, []byte("!<arch>\n"))
	members := map[string][]byte{}
	for found && len(rest) >= 60 {
		size, err := strconv.Atoi(strings.TrimSpace(string(rest[48:58])))
		if err != nil || string(rest[58:60]) != "`\n" || len(rest) < 60+size {
			t.Fatalf("the head of a member is %q", rest[:60])
		}
		members[strings.TrimSpace(string(rest[:16]))] = rest[60 : 60+size]
		rest = rest[60+size+size%2:]
	}
	if len(members) != 3 || string(members["debian-binary"]) != "2.0\n" {
		t.Fatalf("it has %v", slices.Sorted(maps.Keys(members)))
	}
	control, files := unpack(t, members["control.tar.gz"]), unpack(t, members["data.tar.gz"])
	for _, want := range []string{"Package: skep\n", "Architecture: " + arch + "\n", "Recommends: docker.io | docker-ce | moby-engine\n"} {
		if !strings.Contains(string(control["control"].body), want) {
			t.Errorf("control lacks %q:\n%s", want, control["control"].body)
		}
	}
	if got := string(control["conffiles"].body); got != "/etc/default/skep\n/etc/needrestart/conf.d/skep.conf\n" {
		t.Errorf("its conffiles are %q", got)
	}
	isPackaged(t, files, arch)
	if out, there := tool(t, "dpkg-deb", "--contents", path); there && !strings.Contains(out, "./usr/bin/skep") {
		t.Errorf("dpkg-deb says\n%s", out)
	}
	if _, err := exec.LookPath("lintian"); err != nil || arch != runtime.GOARCH {
		return
	}
	// What isn't as in Debian's own packages, and why.
	accepted := map[string]string{
		"statically-linked-binary":            "it runs on any system, and in an empty image",
		"bogus-mail-host":                     "the project has no address",
		"bogus-mail-host-in-debian-changelog": "likewise",
		"maintainer-script-calls-systemctl":   "deb-systemd-invoke would restart, and rpm hasn't got it",
	}
	out, _ := exec.Command("lintian", "--allow-root", "--tag-display-limit", "0", path).CombinedOutput() // fails because of the accepted, too
	for _, m := range regexp.MustCompile(`(?m)^[EW]: skep: (\S+).*$`).FindAllStringSubmatch(string(out), -1) {
		if accepted[m[1]] == "" {
			t.Errorf("lintian: %s", m[0])
		}
	}
}

// unpack are the files of a compressed tar file, all of which are root's and of one time.
func unpack(t *testing.T, compressed []byte) map[string]file {
	t.Helper()
	plain, err := gzip.NewReader(bytes.NewReader(compressed))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]file{}
	var when time.Time
	last := ""
	for r := tar.NewReader(plain); ; {
		h, err := r.Next()
		if err == io.EOF {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if when.IsZero() {
			when = h.ModTime
		}
		if h.Uid != 0 || h.Gid != 0 || !h.ModTime.Equal(when) || h.Name <= last {
			t.Errorf("%s after %s is of %d:%d and %v", h.Name, last, h.Uid, h.Gid, h.ModTime)
		}
		last = h.Name
		body, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimSuffix(strings.TrimPrefix(h.Name, "./"), "/")
		files[name] = file{path: name, mode: h.Mode, body: body, link: h.Linkname}
	}
}

// isPackaged looks at the files that a package brings.
func isPackaged(t *testing.T, files map[string]file, arch string) {
	t.Helper()
	for path, says := range map[string]string{
		"etc/default/skep":                            "SKEP_OPTS=\"\"\n",
		needrestartPath:                               "override_rc",
		"usr/lib/sysusers.d/skep.conf":                "g skep -\n",
		unitPath:                                      "\nExecStart=/usr/bin/skep daemon --group skep $SKEP_OPTS\n",
		bashCompletion:                                "bash completion",
		zshCompletion:                                 "#compdef skep",
		fishCompletion:                                "fish completion",
		prometheus + "skep.rules.yml":                 "groups:",
		prometheus + "scrape.yml":                     "scrape_configs:",
		prometheus + "dashboard.json":                 "panels",
		docs + "copyright":                            "Apache-2.0",
		docs + "LICENSE":                              "Apache License",
		docs + "CHANGELOG.md":                         "# Changes",
		docs + "NOTICES.gz":                           "github.com/hashicorp/raft v",
		docs + "README.md.gz":                         "# skep",
		"usr/share/man/man1/skep.1.gz":                `.TH "SKEP" 1 "20`,
		"usr/share/man/man1/skep-service-create.1.gz": "replicas",
	} {
		body := files[path].body
		if strings.HasSuffix(path, ".gz") {
			r, err := gzip.NewReader(bytes.NewReader(body))
			if err == nil {
				body, err = io.ReadAll(r)
			}
			if err != nil {
				t.Errorf("%s: %v", path, err)
			}
		}
		if !bytes.Contains(body, []byte(says)) || files[path].mode != 0o644 {
			t.Errorf("%s has no %q, or mode %o", path, says, files[path].mode)
		}
	}
	if plugin := files["usr/libexec/docker/cli-plugins/docker-skep"]; filepath.Join("usr/libexec/docker/cli-plugins", plugin.link) != "usr/bin/skep" {
		t.Errorf("docker's plugin leads to %s", plugin.link)
	}
	program, err := elf.NewFile(bytes.NewReader(files["usr/bin/skep"].body))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[arch]
	if program.Machine != want || slices.ContainsFunc(program.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
		t.Errorf("the binary is for %v, or needs another program", program.Machine)
	}
	if files["usr/bin/skep"].mode != 0o755 {
		t.Errorf("the binary has mode %o", files["usr/bin/skep"].mode)
	}
	if arch != runtime.GOARCH {
		return
	}
	dir := t.TempDir()
	binary, unit := filepath.Join(dir, "skep"), filepath.Join(dir, "skep.service")
	if err := os.WriteFile(binary, files["usr/bin/skep"].body, 0o755); err != nil {
		t.Fatal(err)
	}
	out, ranErr := exec.Command(binary, "version", "--json").Output()
	var made struct{ Version, Commit, Time string }
	if err := json.Unmarshal(out, &made); ranErr != nil || err != nil || made.Version == "" || !regexp.MustCompile(`^[0-9a-f]{12}$`).MatchString(made.Commit) || !strings.HasPrefix(made.Time, "20") {
		t.Errorf("the binary says %s, %v", out, ranErr)
	}
	// systemd wants what a unit starts to be there.
	write(t, unit, strings.Replace(string(files[unitPath].body), "/usr/bin/skep", binary, 1))
	if out, there := tool(t, "systemd-analyze", "verify", "--man=no", unit); there {
		for line := range strings.Lines(out) {
			if strings.Contains(line, "skep.service") && !strings.Contains(line, "docker.service") {
				t.Errorf("systemd-analyze verify: %s", line)
			}
		}
	}
	if out, there := tool(t, "systemd-analyze", "security", "--offline=true", "--threshold=30", unit); there {
		t.Logf("%s", out[strings.LastIndex(strings.TrimSpace(out), "\n")+1:])
	}
}

// isAnRPM has rpm read a package, if there is rpm.
func isAnRPM(t *testing.T, path string) {
	t.Helper()
	if out, there := tool(t, "rpm", "-K", "--nosignature", path); there && !strings.Contains(out, "digests OK") {
		t.Errorf("rpm says %s", out)
	}
	list, there := tool(t, "rpm", "-qp", "--nosignature", "--qf", "[%{FILEMODES:perms} %{FILEUSERNAME} %{FILEFLAGS:fflags} %{FILENAMES}\n]", path)
	if !there {
		return
	}
	for _, want := range []string{
		"-rwxr-xr-x root  /usr/bin/skep\n", "-rw-r--r-- root cn /etc/default/skep\n", "-rw-r--r-- root  /usr/share/zsh/site-functions/_skep\n",
		"lrwxrwxrwx root  /usr/libexec/docker/cli-plugins/docker-skep\n", "drwxr-xr-x root  /usr/share/skep\n", "-rw-r--r-- root l /usr/share/doc/skep/LICENSE\n",
	} {
		if !strings.Contains(list, want) {
			t.Errorf("the files of the rpm lack %q:\n%s", want, list)
		}
	}
	for line := range strings.Lines(list) {
		if strings.HasPrefix(line, "d") && !strings.Contains(line, "/skep") {
			t.Errorf("the rpm has a directory that others have, too: %s", line)
		}
	}
	if out, _ := tool(t, "rpm", "-qp", "--nosignature", "--recommends", path); out != "(docker-ce or moby-engine or docker)\n" {
		t.Errorf("the rpm recommends %s", out)
	}
	if out, _ := tool(t, "rpm", "-qp", "--nosignature", "--requires", path); out != "/bin/sh\nsystemd\nrpmlib(RichDependencies) <= 4.12.0-1\n" {
		t.Errorf("the rpm requires %s", out)
	}
	for tag, name := range map[string]string{"POSTIN": "postinst", "PREUN": "prerm", "POSTUN": "postrm"} {
		want, err := os.ReadFile("files/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if out, _ := tool(t, "rpm", "-qp", "--nosignature", "--qf", "%{"+tag+"PROG}\n%{"+tag+"}", path); strings.TrimSpace(out) != "/bin/sh\n"+strings.TrimSpace(string(want)) {
			t.Errorf("the rpm's %s isn't %s:\n%s", tag, name, out)
		}
	}
	if other, _ := tool(t, "rpm", "-qp", "--nosignature", "--qf", "%{PREIN}%{PRETRANS}%{POSTTRANS}%{TRIGGERSCRIPTS}", path); strings.ReplaceAll(other, "(none)", "") != "" {
		t.Errorf("the rpm has other scripts: %s", other)
	}
	if os.Geteuid() == 0 {
		installsByRPM(t, path)
	}
}

// installsByRPM has a package installed, installed again and removed in a root of its own, where there is nothing
// but what its scripts need.
func installsByRPM(t *testing.T, path string) {
	t.Helper()
	root := t.TempDir()
	for _, dir := range []string{"bin", "dev", "tmp", "etc", "var/lib/rpm"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(root, "dev/null"), "") // A file does, too.
	for _, name := range []string{"sh", "cat", "rmdir"} {
		copyProgram(t, root, name)
	}
	for _, name := range []string{"systemctl", "systemd-sysusers"} {
		if err := os.WriteFile(filepath.Join(root, "bin", name), []byte("#!/bin/sh\necho "+name+" \"$@\" >>/ran\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	rpm := func(args ...string) string {
		t.Helper()
		cmd := exec.Command("rpm", append([]string{"--root", root, "--dbpath", "/var/lib/rpm", "--nosignature", "--nodeps"}, args...)...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("rpm %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	ran := func(want string) {
		t.Helper()
		got, _ := os.ReadFile(filepath.Join(root, "ran"))
		if strings.TrimSpace(string(got)) != want {
			t.Errorf("the rpm's scripts ran %q, want %q", got, want)
		}
		_ = os.Remove(filepath.Join(root, "ran"))
	}
	options, kept := filepath.Join(root, "etc/default/skep"), filepath.Join(root, "var/lib/skep/identity.key")
	if out := rpm("-i", "--ignorearch", path); !strings.Contains(out, "systemctl enable --now skep") {
		t.Errorf("the rpm doesn't say how to go on: %s", out)
	}
	ran("systemd-sysusers skep.conf")
	if out := rpm("-V", "skep"); out != "" {
		t.Errorf("what was installed differs from the rpm: %s", out)
	}
	write(t, options, "SKEP_OPTS=\"--latency wan\"\n")
	if err := os.MkdirAll(filepath.Dir(kept), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, kept, "key")
	rpm("-U", "--ignorearch", "--force", path) // As an upgrade is: the new one comes, and then the old one goes.
	ran("systemd-sysusers skep.conf")
	if text, err := os.ReadFile(options); err != nil || !strings.Contains(string(text), "wan") {
		t.Errorf("the options after an upgrade: %q, %v", text, err)
	}
	if out := rpm("-e", "skep"); !strings.Contains(out, "/var/lib/skep is kept") {
		t.Errorf("removed, it says nothing of what is kept: %s", out)
	}
	ran("systemctl --no-reload disable skep.service")
	if _, err := os.Stat(kept); err != nil {
		t.Error(err)
	}
	for _, gone := range []string{"usr/bin/skep", "usr/lib/systemd/system/skep.service", "usr/share/skep"} {
		if _, err := os.Lstat(filepath.Join(root, gone)); err == nil {
			t.Errorf("removed, the rpm leaves %s", gone)
		}
	}
}

// copyProgram copies a program of this host, and what it is linked to, into a root.
func copyProgram(t *testing.T, root, name string) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatal(err)
	}
	linked, _ := exec.Command("ldd", path).Output() // It fails for one that is static.
	copyFile(t, path, filepath.Join(root, "bin", name))
	for _, library := range regexp.MustCompile(`/\S+`).FindAllString(string(linked), -1) {
		copyFile(t, library, filepath.Join(root, library))
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	content, err := os.ReadFile(from)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(to), 0o755)
	}
	if err == nil {
		err = os.WriteFile(to, content, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// isABill looks for what a scanner of advisories goes by.
func isABill(t *testing.T, path string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var bill struct {
		BomFormat, SpecVersion, SerialNumber string
		Components                           []component
	}
	if err := json.Unmarshal(text, &bill); err != nil {
		t.Fatal(err)
	}
	if bill.BomFormat != "CycloneDX" || !regexp.MustCompile(`^urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`).MatchString(bill.SerialNumber) {
		t.Errorf("it is %+v", bill)
	}
	parts := map[string]component{}
	for _, c := range bill.Components {
		parts[c.PURL] = c
	}
	for _, want := range []string{`^pkg:golang/std@1\.`, `^pkg:golang/github.com/hashicorp/raft@v1\.`, `^pkg:golang/github.com/docker/cli@v28\.5\.2%2Bincompatible$`} {
		found := slices.IndexFunc(bill.Components, func(c component) bool { return regexp.MustCompile(want).MatchString(c.PURL) })
		if found < 0 || len(bill.Components[found].Hashes) != 1 && bill.Components[found].Name != "std" {
			t.Errorf("nothing, or nothing whole, is like %s", want)
		}
	}
	if len(parts) != len(bill.Components) || len(parts) < 50 {
		t.Errorf("%d parts, %d different ones", len(bill.Components), len(parts))
	}
}

// isALayout follows the OCI layout from its top to the layers.
func isALayout(t *testing.T, made map[string][]byte) {
	t.Helper()
	for name, content := range made {
		if !strings.HasSuffix(name, ".oci.tar") {
			continue
		}
		files := unpack(t, compressed(content))
		get := func(d descriptor, into any) []byte {
			body := files["blobs/sha256/"+strings.TrimPrefix(d.Digest, "sha256:")].body
			if fmt.Sprintf("sha256:%x", sha256.Sum256(body)) != d.Digest || len(body) != d.Size {
				t.Fatalf("there is no %s of %d bytes", d.Digest, d.Size)
			}
			if into != nil {
				if err := json.Unmarshal(body, into); err != nil {
					t.Fatal(err)
				}
			}
			return body
		}
		var top, all struct{ Manifests []descriptor }
		if err := json.Unmarshal(files["index.json"].body, &top); err != nil || len(top.Manifests) != 1 || len(files["oci-layout"].body) == 0 {
			t.Fatalf("index.json: %v, %v", top, err)
		}
		get(top.Manifests[0], &all)
		var archs []string
		for _, m := range all.Manifests {
			archs = append(archs, m.Platform.Architecture)
			var manifest struct {
				Config descriptor
				Layers []descriptor
			}
			get(m, &manifest)
			var config imageConfig
			get(manifest.Config, &config)
			layer := get(manifest.Layers[0], nil)
			plain, err := gzip.NewReader(bytes.NewReader(layer))
			if err != nil {
				t.Fatal(err)
			}
			sum := sha256.New()
			if _, err := io.Copy(sum, plain); err != nil || config.RootFS.DiffIDs[0] != fmt.Sprintf("sha256:%x", sum.Sum(nil)) || config.Architecture != m.Platform.Architecture {
				t.Errorf("the configuration is %+v, %v", config, err)
			}
			if _, is := unpack(t, layer)["usr/bin/skep"]; !is {
				t.Error("the layer has no binary")
			}
		}
		if !slices.Equal(archs, architectures) {
			t.Errorf("it has images for %v", archs)
		}
		return
	}
	t.Error("there is no OCI layout")
}

// runs has the local engine load and run the image, if there is one.
func runs(t *testing.T, path string) {
	t.Helper()
	docker := func(args ...string) (string, error) {
		cmd := exec.Command("docker", args...)
		cmd.Env = append(os.Environ(), "DOCKER_CONFIG="+t.TempDir())
		out, err := cmd.CombinedOutput()
		return strings.TrimSpace(string(out)), err
	}
	if _, err := docker("info"); err != nil {
		if os.Getenv("SKEP_REQUIRE_DOCKER") == "1" {
			t.Fatalf("no engine answers: %v", err)
		}
		t.Log("no engine answers, so no image was run")
		return
	}
	archive, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var manifest []struct{ RepoTags []string }
	if err := json.Unmarshal(unpack(t, archive)["manifest.json"].body, &manifest); err != nil || len(manifest) != 1 || len(manifest[0].RepoTags) != 1 {
		t.Fatalf("the image's manifest is %v, %v", manifest, err)
	}
	name := manifest[0].RepoTags[0]
	if _, err := docker("image", "inspect", name); err == nil {
		t.Fatalf("the engine has %s already, which isn't the test's to replace: docker image rm %s", name, name)
	}
	if loaded, err := docker("load", "--input", path); err != nil || loaded != "Loaded image: "+name {
		t.Fatalf("docker load: %v: %s", err, loaded)
	}
	defer func() {
		if out, err := docker("image", "rm", name); err != nil {
			t.Errorf("docker image rm: %v: %s", err, out)
		}
	}()
	for args, says := range map[string]string{"--version": "skep version", "version --json": `"Modules"`, "daemon --help": "Run a node of the cluster"} {
		if out, err := docker(append([]string{"run", "--rm", "--network", "none", name}, strings.Fields(args)...)...); err != nil || !strings.Contains(out, says) {
			t.Errorf("docker run %s %s: %v: %s", name, args, err, out)
		}
	}
	if out, err := docker("image", "inspect", "--format", "{{.Architecture}} {{.Config.Entrypoint}} {{.Config.Cmd}}", name); err != nil || out != runtime.GOARCH+" [/usr/bin/skep] [daemon]" {
		t.Errorf("docker image inspect: %v: %s", err, out)
	}
}

// TestScripts has dpkg's and rpm's scripts run as both call them, where no systemd runs: in a chroot, or
// while an image is built. On machines TestMachines_Packages of cmd/lab has them run.
func TestScripts(t *testing.T) {
	if _, err := os.Stat("/run/systemd/system"); err == nil {
		t.Skip("a systemd runs here, which they would speak to")
	}
	for _, test := range []struct{ script, args, runs, says string }{
		{"postinst", "configure", "systemd-sysusers skep.conf", "systemctl enable --now skep"},
		{"postinst", "configure 0.1.0", "systemd-sysusers skep.conf", ""},
		{"postinst", "abort-upgrade 0.1.0", "", ""},
		{"postinst", "1", "systemd-sysusers skep.conf", "docker context create skep"},
		{"postinst", "2", "systemd-sysusers skep.conf", ""},
		{"prerm", "upgrade 0.1.1", "", ""},
		{"prerm", "1", "", ""},
		{"prerm", "remove", "systemctl --no-reload disable skep.service", ""},
		{"prerm", "0", "systemctl --no-reload disable skep.service", ""},
		{"postrm", "upgrade 0.1.1", "", ""},
		{"postrm", "remove", "", ""},
		{"postrm", "purge", "", ""},
		{"postrm", "1", "", ""},
		{"postrm", "0", "", ""},
	} {
		bin, ran := t.TempDir(), filepath.Join(t.TempDir(), "ran")
		for _, name := range []string{"systemctl", "systemd-sysusers"} {
			if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\necho "+name+" \"$@\" >>"+ran+"\n"), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		cmd := exec.Command("sh", append([]string{"files/" + test.script}, strings.Fields(test.args)...)...)
		cmd.Env = []string{"PATH=" + bin + ":" + os.Getenv("PATH")}
		out, err := cmd.CombinedOutput()
		did, _ := os.ReadFile(ran)
		if err != nil || strings.TrimSpace(string(did)) != test.runs || !strings.Contains(string(out), test.says) || test.says == "" && len(out) > 0 {
			t.Errorf("%s %s: %v: it ran %q and said %q", test.script, test.args, err, did, out)
		}
	}
}

// TestPackageVersion_IsInOrder: dpkg and rpm take each for newer than the one before.
func TestPackageVersion_IsInOrder(t *testing.T) {
	when := time.Unix(1796064548, 0)
	order := []struct{ version, want string }{
		{"0.1.0-dev", "0.1.0~dev+20261130184908.g0123456789ab"}, // after no tag
		{"0.1.0-rc.1", "0.1.0~rc.1"},
		{"0.1.0-rc.1-3-g00112233aabb", "0.1.0~rc.1+3.g00112233aabb"},
		{"0.1.0-rc.1-12-g0aa12233aabb", "0.1.0~rc.1+12.g0aa12233aabb"},
		{"0.1.0-rc.2", "0.1.0~rc.2"},
		{"0.1.0", "0.1.0"},
		{"0.1.0-2-gffffffffffff", "0.1.0+2.gffffffffffff"},
		{"0.1.0-10-g00112233aabb", "0.1.0+10.g00112233aabb"},
		{"0.1.1-a-b", "0.1.1~a.b"},
		{"0.1.1", "0.1.1"},
		{"0.10.0", "0.10.0"},
	}
	last := ""
	for i, o := range order {
		got, err := packageVersion(o.version, i > 0, "0123456789abcdef", when)
		if err != nil || got != o.want {
			t.Errorf("%s is %s, %v; want %s", o.version, got, err, o.want)
		}
		if last != "" {
			tool(t, "dpkg", "--compare-versions", last, "lt", got)
			if out, there := tool(t, "rpm", "--eval", `%{lua: print(rpm.vercmp("`+last+`", "`+got+`"))}`); there && strings.TrimSpace(out) != "-1" {
				t.Errorf("rpm compares %s with %s: %s", last, got, out)
			}
		}
		last = got
	}
	for _, bad := range []string{"", "next", "1.2", "1.2.3 4", "1.2.3-", "1.2.3-ü", "1.2.3+4"} {
		if got, err := packageVersion(bad, true, "0123456789abcdef", when); err == nil {
			t.Errorf("%q is %s", bad, got)
		}
	}
}

func TestPack_RefusesWhatMakesNoSense(t *testing.T) {
	for args, says := range map[string]string{
		"-arch riscv64":                  "want some of amd64,arm64",
		"everything":                     `there is no "everything"`,
		"-C /":                           "made of a commit",
		"-C ../.. -version next":         "want MAJOR.MINOR.PATCH",
		"-C ../.. -version 1.2.3_4 -out": "flag needs an argument",
	} {
		if err := pack(t.Context(), strings.Fields(args)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want something with %q", args, err, says)
		}
	}
}

// TestUnit_IsTheReadmes: a unit that has changed so that no package can be made of it is noticed here.
func TestUnit_IsTheReadmes(t *testing.T) {
	unit, err := os.ReadFile("../skep/skep.service")
	if err != nil {
		t.Fatal(err)
	}
	got, err := packagedUnit(unit)
	if err != nil {
		t.Fatal(err)
	}
	var differ []string
	theirs := strings.Split(string(unit), "\n")
	for i, line := range strings.Split(string(got), "\n") {
		if line != theirs[i] {
			differ = append(differ, line)
		}
	}
	if len(differ) != 1 || !strings.HasPrefix(differ[0], "ExecStart=/usr/bin/skep ") {
		t.Errorf("it differs in %q", differ)
	}
	if _, err := packagedUnit([]byte("[Unit]\n")); err == nil {
		t.Error("a unit that starts nothing was taken")
	}
}
