package up

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/client"
)

// An image goes from one engine to others without a registry: saved once, and to each node only the
// layers that its engine lacks.

// Held is what an engine says of an image, and of the layers of all that it has.
type Held struct {
	// ID is the image's; empty when it isn't there.
	ID string
	// Layers are those of each of its images, lowest first.
	Layers [][]string
}

// Holds asks an engine.
func Holds(ctx context.Context, c client.APIClient, ref string) (h Held, err error) {
	switch is, err := c.ImageInspect(ctx, ref); {
	case err == nil:
		h.ID = is.ID
		return h, nil // Its layers aren't needed.
	case !cerrdefs.IsNotFound(err):
		return h, err
	}
	list, err := c.ImageList(ctx, image.ListOptions{})
	for _, i := range list {
		is, err := c.ImageInspect(ctx, i.ID)
		if err != nil {
			continue // It was removed meanwhile.
		}
		h.Layers = append(h.Layers, is.RootFS.Layers)
	}
	return h, err
}

// Load has an engine take images from in.
func Load(ctx context.Context, c client.APIClient, in io.Reader) error {
	said, err := c.ImageLoad(ctx, in, client.ImageLoadWithQuiet(true))
	if err != nil {
		return err
	}
	defer said.Body.Close()
	for dec := json.NewDecoder(said.Body); ; {
		var line struct{ Error string }
		switch err := dec.Decode(&line); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case line.Error != "":
			return errors.New(line.Error)
		}
	}
}

// shared is how many of an image's layers, from the lowest, an engine has in just that order: an
// engine knows a layer by all that is below it.
func shared(layers []string, there [][]string) (most int) {
	for _, other := range there {
		n := 0
		for n < len(layers) && n < len(other) && layers[n] == other[n] {
			n++
		}
		most = max(most, n)
	}
	return most
}

// spare names the files of a saved image that needn't go to an engine that has its first layers.
func spare(manifest []byte, first int) (map[string]bool, error) {
	var saved []struct{ Layers []string }
	if err := json.Unmarshal(manifest, &saved); err != nil || len(saved) != 1 {
		return nil, fmt.Errorf("read a saved image: it has %d manifests: %v", len(saved), err)
	}
	names := map[string]bool{}
	layers := saved[0].Layers
	for i, name := range layers[:min(first, len(layers))] {
		if !slices.Contains(layers[i+1:], name) {
			names[path.Clean(name)] = true
		}
	}
	return names, nil
}

// Saved is an image in a file, as an engine saves it.
type Saved struct {
	Ref, ID string
	Layers  []string
	File    io.ReaderAt
	Size    int64

	manifest []byte
}

// Read finds what a partial copy needs to know.
func (s *Saved) Read() error {
	files := tar.NewReader(io.NewSectionReader(s.File, 0, s.Size))
	for {
		head, err := files.Next()
		switch {
		case errors.Is(err, io.EOF):
			return fmt.Errorf("read the saved image: %w", io.ErrUnexpectedEOF)
		case err != nil:
			return fmt.Errorf("read the saved image: %w", err)
		case head.Name == "manifest.json":
			s.manifest, err = io.ReadAll(io.LimitReader(files, mostAnswer))
			return err
		}
	}
}

// without copies the image but for some files.
func (s *Saved) without(names map[string]bool, w io.Writer) error {
	if len(names) == 0 {
		_, err := io.Copy(w, io.NewSectionReader(s.File, 0, s.Size))
		return err
	}
	files, out := tar.NewReader(io.NewSectionReader(s.File, 0, s.Size)), tar.NewWriter(w)
	for {
		head, err := files.Next()
		switch {
		case errors.Is(err, io.EOF):
			return out.Close()
		case err != nil:
			return err
		case names[path.Clean(head.Name)] && head.Typeflag == tar.TypeReg:
			continue
		}
		if err := out.WriteHeader(head); err != nil {
			return err
		}
		if _, err := io.Copy(out, files); err != nil {
			return err
		}
	}
}

// Push has machines' engines hold the image, all at once, and tells of each how it went.
func (u *Up) Push(ctx context.Context, hosts []string, s *Saved) error {
	errs := make([]error, len(hosts))
	var work sync.WaitGroup
	for i, host := range hosts {
		work.Go(func() {
			err := u.failed[host]
			if err == nil {
				err = u.push(ctx, host, s)
			}
			if err != nil {
				errs[i] = fmt.Errorf("%s: %w", host, err)
			}
		})
	}
	work.Wait()
	return errors.Join(errs...)
}

func (u *Up) push(ctx context.Context, host string, s *Saved) error {
	var out bytes.Buffer
	if err := u.Runner.Run(ctx, host, Order{Verb: "installed", Args: []string{"machine", "image", s.Ref}, Out: &limited{w: &out, left: mostAnswer}}); err != nil {
		return err
	}
	var held Held
	if err := json.Unmarshal(out.Bytes(), &held); err != nil {
		return fmt.Errorf("read what its engine has: %w", err)
	}
	if held.ID == s.ID {
		u.Say(host, "has it")
		return nil
	}
	first := shared(s.Layers, held.Layers)
	names, err := spare(s.manifest, first)
	if err != nil {
		return err
	}
	size, err := u.send(ctx, host, s, names)
	if err != nil && len(names) > 0 && ctx.Err() == nil {
		// Not every engine takes an image without layers that it has.
		u.Say(host, "wants all layers: "+strings.TrimSpace(err.Error()))
		first = 0
		size, err = u.send(ctx, host, s, nil)
	}
	if err != nil {
		return err
	}
	u.Say(host, fmt.Sprintf("has it now: %d of %d layers were sent, %.1f MB", len(s.Layers)-first, len(s.Layers), float64(size)/1e6))
	return nil
}

// send streams the image, and says how many bytes that were.
func (u *Up) send(ctx context.Context, host string, s *Saved, names map[string]bool) (int64, error) {
	r, w := io.Pipe()
	count := &counting{w: w}
	go func() { _ = w.CloseWithError(s.without(names, count)) }()
	err := u.Runner.Run(ctx, host, Order{Verb: "installed", Args: []string{"machine", "load"}, In: r})
	_ = r.CloseWithError(io.ErrClosedPipe)
	return count.n.Load(), err
}

// counting counts what goes through.
type counting struct {
	w io.Writer
	n atomic.Int64
}

func (c *counting) Write(p []byte) (int, error) {
	c.n.Add(int64(len(p)))
	return c.w.Write(p)
}
