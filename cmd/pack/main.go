// Command pack makes what a release consists of: packages for dpkg and rpm, images, and bills of materials, for
// amd64 and arm64, and their SHA256SUMS. A build machine runs it, or `make packages`.
//
// From one commit, by one version of Go, it makes the same bytes, whatever directory and machine it runs in, and
// whatever lies about in the working tree: it packs a clone of the commit, everything in the packages is root's
// and has the commit's time, and all lists are sorted. It needs git and Go, and neither root, nor an engine, nor
// dpkg or rpm.
//
// A deb file is two tar files in an ar archive, and an image is tar files and JSON: both are written here, by the standard library. An
// rpm file has a header of a hundred tags whose meaning changed over the years, so that is left to
// google/rpmpack, which many rpms of others were made by. pack is a module of its own, so that what rpmpack brings
// doesn't stand in skep's. Tools that write all formats (nfpm) bring far more, for formats that aren't made here.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sync/errgroup"
)

// architectures are those that there are packages for.
var architectures = []string{"amd64", "arm64"}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := pack(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "pack:", err)
		os.Exit(1)
	}
}

func pack(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("pack", flag.ContinueOnError)
	root := fs.String("C", ".", "directory in the working tree of skep")
	out := fs.String("out", "", "directory to write to (default bin/packages of the working tree)")
	only := fs.String("arch", strings.Join(architectures, ","), "architectures")
	uncommitted := fs.Bool("uncommitted", false, "pack the working tree as it is, for tests, rather than the commit that it has")
	version := fs.String("version", "", "version, for tests, rather than that of the last tag")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return fmt.Errorf("there is no %q to pack", fs.Arg(0))
	}
	archs := strings.Split(*only, ",")
	for _, arch := range archs {
		if !slices.Contains(architectures, arch) {
			return fmt.Errorf("pack for %q: want some of %s", arch, strings.Join(architectures, ","))
		}
	}
	host, err := canRun()
	if err != nil {
		return err
	}
	top, err := run(ctx, *root, nil, "git", "rev-parse", "--show-toplevel")
	if err != nil {
		return fmt.Errorf("packages are made of a commit: %w", err)
	}
	*root = strings.TrimSpace(string(top))
	if *out == "" {
		*out = filepath.Join(*root, "bin", "packages")
	}
	work, err := os.MkdirTemp("", "skep-pack-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	s, err := checkout(ctx, *root, filepath.Join(work, "source"), *uncommitted, *version)
	if err != nil {
		return err
	}
	if changed, err := run(ctx, *root, nil, "git", "status", "--porcelain"); err != nil {
		return err
	} else if len(changed) > 0 && !*uncommitted {
		fmt.Fprintln(os.Stderr, "pack: what isn't committed isn't packed")
	}
	made, err := s.pack(ctx, work, host, archs)
	if err != nil {
		return err
	}
	return writeAll(*out, made)
}

// pack makes everything and returns it by the names of the files.
func (s *source) pack(ctx context.Context, work, host string, archs []string) (map[string][]byte, error) {
	binaries := map[string]string{}
	for _, arch := range archs {
		path, err := s.build(ctx, arch, work)
		if err != nil {
			return nil, err
		}
		binaries[arch] = path
	}
	if _, is := binaries[host]; !is {
		path, err := s.build(ctx, host, work)
		if err != nil {
			return nil, err
		}
		binaries[host] = path
	}
	documents, err := documents(ctx, binaries[host], work)
	if err != nil {
		return nil, err
	}
	scripts := map[string][]byte{"postinst": nil, "prerm": nil, "postrm": nil}
	for name := range scripts {
		if scripts[name], err = s.read("cmd/pack/files/" + name); err != nil {
			return nil, err
		}
	}
	licence, err := s.read("LICENSE")
	if err != nil {
		return nil, err
	}
	made := map[string][]byte{}
	var images []*image
	for _, arch := range archs {
		binary, err := os.ReadFile(binaries[arch])
		if err != nil {
			return nil, err
		}
		notices, err := s.notices(ctx, arch)
		if err != nil {
			return nil, err
		}
		files, err := s.contents(binary, notices, documents)
		if err != nil {
			return nil, err
		}
		image, err := newImage(s, arch, binary, notices, licence)
		if err != nil {
			return nil, err
		}
		images = append(images, image)
		base := fmt.Sprintf("skep_%s_%s", s.pkg, arch)
		var asDeb, asRPM, asArchive, asBill []byte
		var errs errgroup.Group // Each takes seconds to compress.
		errs.Go(func() (err error) { asDeb, err = deb(s, arch, files, scripts); return err })
		errs.Go(func() (err error) { asRPM, err = rpm(s, arch, files, scripts); return err })
		errs.Go(func() (err error) { asArchive, err = image.archive(s.when); return err })
		errs.Go(func() (err error) { asBill, err = sbom(s, arch, binaries[arch], binary); return err })
		if err := errs.Wait(); err != nil {
			return nil, err
		}
		made[base+".deb"], made[base+".image.tar.gz"], made[base+".cdx.json"] = asDeb, asArchive, asBill
		made[fmt.Sprintf("skep-%s-1.%s.rpm", s.pkg, rpmArch(arch))] = asRPM
	}
	made[fmt.Sprintf("skep_%s.oci.tar", s.pkg)], err = layout(s, images)
	return made, err
}

// writeAll writes what was made, and the digests of all.
func writeAll(dir string, made map[string][]byte) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var sums strings.Builder
	names := make([]string, 0, len(made))
	for name := range made {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if err := os.WriteFile(filepath.Join(dir, name), made[name], 0o644); err != nil {
			return err
		}
		fmt.Fprintf(&sums, "%s  %s\n", digest(made[name]), name)
		fmt.Println(filepath.Join(dir, name))
	}
	return os.WriteFile(filepath.Join(dir, "SHA256SUMS"), []byte(sums.String()), 0o644)
}
