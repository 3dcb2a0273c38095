package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// source is a commit, in a directory of its own: what lies about in somebody's working tree gets into no
// package, and the Go tool stamps the binary with the commit, which it does in no linked working tree.
type source struct {
	dir     string
	commit  string
	when    time.Time // of the commit: the time of all that is made
	version string    // of the binary: 0.2.0, 0.2.0-3-g0123456789ab
	pkg     string    // of packages
}

// checkout makes the source of the commit that is checked out in root. With uncommitted it is a commit of all that
// is in the working tree, as of the same time. version replaces what git says, unless it is empty.
func checkout(ctx context.Context, root, dir string, uncommitted bool, version string) (*source, error) {
	s := &source{dir: dir}
	git := func(args ...string) (string, error) {
		out, err := run(ctx, "", nil, "git", args...)
		return strings.TrimSpace(string(out)), err
	}
	if _, err := git("clone", "-q", "--shared", "--no-checkout", "--", root, dir); err != nil {
		return nil, fmt.Errorf("packages are made of a commit: %w", err)
	}
	when, err := git("-C", dir, "log", "-1", "--format=%ct")
	if err != nil {
		return nil, err
	}
	seconds, err := strconv.ParseInt(when, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("read the time of the commit: %w", err)
	}
	s.when = time.Unix(seconds, 0).UTC()
	if uncommitted {
		_, err = git("--git-dir="+dir+"/.git", "--work-tree="+root, "add", "-A")
		if err == nil {
			date := when + " +0000"
			_, err = run(ctx, dir, []string{"GIT_AUTHOR_DATE=" + date, "GIT_COMMITTER_DATE=" + date}, "git", "-c", "user.name=pack", "-c", "user.email=pack@localhost",
				"-c", "commit.gpgSign=false", "-c", "core.hooksPath=/dev/null", "commit", "-q", "--allow-empty", "-m", "What isn't committed yet")
		}
		if err != nil {
			return nil, err
		}
	}
	if _, err := git("-C", dir, "reset", "-q", "--hard"); err != nil {
		return nil, err
	}
	if s.commit, err = git("-C", dir, "rev-parse", "HEAD"); err != nil {
		return nil, err
	}
	tagged := version != ""
	if !tagged {
		if version, err = git("-C", dir, "describe", "--tags", "--abbrev=12"); err == nil {
			tagged = true
		} else if version, err = s.changelog(); err != nil {
			return nil, err
		}
	}
	s.version = strings.TrimPrefix(version, "v")
	s.pkg, err = packageVersion(s.version, tagged, s.commit, s.when)
	return s, err
}

// changelog is the version that the changelog begins with, for a commit after no tag.
func (s *source) changelog() (string, error) {
	text, err := s.read("CHANGELOG.md")
	if err != nil {
		return "", err
	}
	m := regexp.MustCompile(`(?m)^## (\d\S*)$`).FindSubmatch(text)
	if m == nil {
		return "", errors.New("there is no tag, and CHANGELOG.md has no version")
	}
	return string(m[1]), nil
}

func (s *source) read(path string) ([]byte, error) { return os.ReadFile(filepath.Join(s.dir, path)) }

// settings are those of a build that the environment may have others of.
func settings(arch string) []string {
	return []string{"CGO_ENABLED=0", "GOOS=linux", "GOARCH=" + arch, "GOAMD64=v1", "GOARM64=v8.0", "GOFLAGS=", "GOEXPERIMENT=", "GOFIPS140=off", "GODEBUG=", "GOWORK=off"}
}

// build makes the binary for an architecture and returns its path.
func (s *source) build(ctx context.Context, arch, dir string) (string, error) {
	path := filepath.Join(dir, "skep-"+arch)
	_, err := run(ctx, s.dir, settings(arch), "go", "build", "-trimpath", "-buildvcs=true", "-ldflags", "-s -w -X main.version="+s.version, "-o", path, "./cmd/skep")
	return path, err
}

// notices are the licences of what is linked into the binary for an architecture.
func (s *source) notices(ctx context.Context, arch string) ([]byte, error) {
	return run(ctx, s.dir, settings(arch), filepath.Join(s.dir, ".ci/notices"))
}

// documents are what the binary says of itself, by their paths in the package. They are the same for every
// architecture, so the binary that this machine can run writes them.
func documents(ctx context.Context, binary, dir string) (map[string][]byte, error) {
	made := map[string][]byte{}
	home := filepath.Join(dir, "home")
	pages := filepath.Join(dir, "man")
	if err := errors.Join(os.Mkdir(home, 0o700), os.Mkdir(pages, 0o700)); err != nil {
		return nil, err
	}
	say := func(args ...string) ([]byte, error) {
		cmd := exec.CommandContext(ctx, binary, args...)
		cmd.Dir, cmd.Env = dir, []string{"HOME=" + home, "LC_ALL=C"}
		return output(cmd)
	}
	for shell, path := range map[string]string{"bash": bashCompletion, "zsh": zshCompletion, "fish": fishCompletion} {
		out, err := say("completion", shell)
		if err != nil {
			return nil, err
		}
		made[path] = out
	}
	if _, err := say("man", pages); err != nil {
		return nil, err
	}
	list, err := os.ReadDir(pages)
	if err != nil {
		return nil, err
	}
	for _, page := range list {
		text, err := os.ReadFile(filepath.Join(pages, page.Name()))
		if err != nil {
			return nil, err
		}
		made["usr/share/man/man1/"+page.Name()+".gz"] = compressed(text)
	}
	return made, nil
}

// canRun is the architecture of the binaries that this machine can run.
func canRun() (string, error) {
	if runtime.GOOS != "linux" {
		return "", fmt.Errorf("completions and manual pages are written by the binary itself, which doesn't run on %s", runtime.GOOS)
	}
	return runtime.GOARCH, nil
}

// run runs a program with some more of an environment and returns what it printed. What the environment says to
// git, such as in a hook, is about another directory.
func run(ctx context.Context, dir string, env []string, program string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = dir
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "GIT_") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(cmd.Env, env...)
	return output(cmd)
}

func output(cmd *exec.Cmd) ([]byte, error) {
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w: %s", filepath.Base(cmd.Path), strings.Join(cmd.Args[1:], " "), err, bytes.TrimSpace(said.Bytes()))
	}
	return out, nil
}

// compressed is a text in gzip's format, without a time, and as small as Debian wants its pages.
func compressed(text []byte) []byte { return compressedBy(gzip.BestCompression, text) }

// compressedSoon is for what is large: it comes out a little larger, and much sooner.
func compressedSoon(b []byte) []byte { return compressedBy(gzip.DefaultCompression, b) }

func compressedBy(level int, text []byte) []byte {
	var b bytes.Buffer
	w, _ := gzip.NewWriterLevel(&b, level) // fails for levels that aren't
	_, _ = w.Write(text)                   // to memory
	_ = w.Close()
	return b.Bytes()
}
