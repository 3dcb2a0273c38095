package main

import (
	"archive/tar"
	"bytes"
	"context"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/docker/docker/api/types/build"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/client"
)

const defaultEngine = "unix:///var/run/docker.sock"

// oldImage and newImage are the two versions of the example application.
const (
	oldImage = "timecheck:1.0"
	newImage = "timecheck:2.0"
)

// connect returns a client of the Docker Engine API at host, whoever serves it.
func connect(host string) (*client.Client, error) {
	return client.NewClientWithOpts(client.WithHost(host), client.WithAPIVersionNegotiation())
}

// engineAnswers tells whether there is a Docker Engine to run containers on.
func engineAnswers(ctx context.Context, host string) bool {
	c, err := connect(host)
	if err != nil {
		return false
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_, err = c.Info(ctx)
	return err == nil
}

func runImages(ctx context.Context, l lab, _ []string) error {
	return buildTimecheck(ctx, l)
}

// buildTimecheck puts both versions of timecheck into the engine. They differ in what
// they say, which is all that an update needs to show.
func buildTimecheck(ctx context.Context, l lab) error {
	for tag, version := range map[string]string{oldImage: "1.0", newImage: "2.0"} {
		dockerfile := "FROM scratch\nCOPY timecheck /timecheck\nENV TIMECHECK_VERSION=" + version + "\nENTRYPOINT [\"/timecheck\"]\n"
		if err := buildImage(ctx, l.engine, tag, dockerfile, filepath.Join(l.bin, "timecheck")); err != nil {
			return err
		}
	}
	return nil
}

// runImage makes the image of the Dockerfile's last stage out of the local binary.
func runImage(ctx context.Context, l lab, _ []string) error {
	const dockerfile = "FROM scratch\nCOPY skep /usr/bin/skep\nENTRYPOINT [\"/usr/bin/skep\"]\nCMD [\"daemon\"]\n"
	return buildImage(ctx, l.engine, "skep:dev", dockerfile, filepath.Join(l.bin, "skep"))
}

// buildImage builds tag out of some files, through the engine's API, so that no docker
// command is needed. The engine's cache gives the same image for the same files.
func buildImage(ctx context.Context, engine, tag, dockerfile string, files ...string) error {
	var context bytes.Buffer
	w := tar.NewWriter(&context)
	err := add(w, "Dockerfile", 0o644, []byte(dockerfile))
	for _, file := range files {
		content, readErr := os.ReadFile(file)
		err = errors.Join(err, readErr, standsAlone(file, content), add(w, filepath.Base(file), 0o755, content))
	}
	if err = errors.Join(err, w.Close()); err != nil {
		return fmt.Errorf("build image %s: %w", tag, err)
	}
	c, err := connect(engine)
	if err != nil {
		return fmt.Errorf("build image %s: %w", tag, err)
	}
	defer c.Close()
	old, oldErr := c.ImageInspect(ctx, tag)
	resp, err := c.ImageBuild(ctx, &context, build.ImageBuildOptions{Tags: []string{tag}, Remove: true, ForceRemove: true})
	if err != nil {
		return fmt.Errorf("build image %s: %w", tag, err)
	}
	defer resp.Body.Close()
	if err := saidError(resp.Body, "build image "+tag); err != nil {
		return err
	}
	// What lost its name to the new image is of no use, unless it is in use.
	if now, err := c.ImageInspect(ctx, tag); oldErr == nil && err == nil && now.ID != old.ID {
		_, _ = c.ImageRemove(ctx, old.ID, image.RemoveOptions{PruneChildren: true})
	}
	return nil
}

// standsAlone refuses a program that needs what an image with nothing else in it lacks: its containers would end as soon as
// they start, which looks like anything else.
func standsAlone(name string, content []byte) error {
	program, err := elf.NewFile(bytes.NewReader(content))
	if err != nil {
		return nil // It is no program.
	}
	if slices.ContainsFunc(program.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
		return fmt.Errorf("%s is linked dynamically, so it can't start in an image of its own: build it with \"make build\", or with CGO_ENABLED=0", name)
	}
	return nil
}

// saidError reads what an engine says while it works: the status is 200 even when that
// fails, and the stream says how it went.
func saidError(said io.Reader, work string) error {
	for dec := json.NewDecoder(said); ; {
		var line struct{ Error string }
		switch err := dec.Decode(&line); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("%s: %w", work, err)
		case line.Error != "":
			return fmt.Errorf("%s: %s", work, line.Error)
		}
	}
}

func add(w *tar.Writer, name string, mode int64, content []byte) error {
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: mode, Size: int64(len(content))}); err != nil {
		return err
	}
	_, err := w.Write(content)
	return err
}
