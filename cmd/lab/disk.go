package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

const (
	diskBytes = 96 << 20
	freeze    = 0xC0045877 // FIFREEZE, FITHAW of linux/fs.h
	thaw      = 0xC0045878
)

// disk is a small file system of a node's own, in a file, seen in its namespace only.
type disk struct {
	in     *namespace
	mount  string
	frozen bool
}

// newDisk makes and mounts one below dir.
func newDisk(in *namespace, dir, mount string) (*disk, error) {
	image := filepath.Join(dir, "disk")
	if err := errors.Join(os.MkdirAll(mount, 0o700), os.WriteFile(image, nil, 0o600), os.Truncate(image, diskBytes)); err != nil {
		return nil, err
	}
	for _, command := range [][]string{
		{"mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0", image},
		{"mount", "-o", "loop", image, mount},
	} {
		if err := in.tool(command[0], command[1:]...); err != nil {
			return nil, fmt.Errorf("make a disk: %w", err)
		}
	}
	return &disk{in: in, mount: mount}, nil
}

func (d *disk) filler() string { return filepath.Join(d.mount, "filler") }

// fill takes all the room that is left.
func (d *disk) fill() error {
	return d.in.do(func() error {
		f, err := os.OpenFile(d.filler(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		if err != nil {
			return err
		}
		defer f.Close()
		for size := 1 << 20; size > 0; {
			switch _, err := f.Write(make([]byte, size)); {
			case errors.Is(err, syscall.ENOSPC):
				size /= 2
			case err != nil:
				return err
			}
		}
		return nil
	})
}

func (d *disk) free() error {
	return d.in.do(func() error { return os.Remove(d.filler()) })
}

// freeze lets everything that writes wait, and thaw lets it go on.
func (d *disk) freeze() error {
	err := d.control(freeze)
	d.frozen = d.frozen || err == nil
	return err
}

func (d *disk) thaw() error {
	if !d.frozen {
		return nil
	}
	d.frozen = false
	return d.control(thaw)
}

func (d *disk) control(command uintptr) error {
	return d.in.do(func() error {
		f, err := os.Open(d.mount)
		if err != nil {
			return err
		}
		defer f.Close()
		if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), command, 0); errno != 0 {
			return fmt.Errorf("freeze or thaw %s: %w", d.mount, errno)
		}
		return nil
	})
}
