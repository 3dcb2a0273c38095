package seal

import (
	"fmt"
	"os"
	"path/filepath"
)

// File is one small sealed file that is only ever replaced whole. After a crash
// it has what was last written, or what was before; nothing between. It has one
// writer at a time; its folder must exist.
type File struct {
	path  string
	ring  *Ring
	place Location
}

// NewFile names a file; kind keeps files apart that are sealed under one key.
func NewFile(path string, ring *Ring, clusterID, kind string) *File {
	return &File{path: path, ring: ring, place: Location{ClusterID: clusterID, Kind: "file " + kind}}
}

// Read returns what was last written. The error of a file that isn't there is
// fs.ErrNotExist; of one that doesn't open, ErrBad.
func (f *File) Read() ([]byte, error) {
	sealed, err := os.ReadFile(f.path)
	if err != nil {
		return nil, fmt.Errorf("read sealed file: %w", err)
	}
	plain, err := f.ring.Open(sealed, f.place)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", f.path, err)
	}
	return plain, nil
}

// Write replaces the file. When it returns nil, the new content is on the disk.
func (f *File) Write(plain []byte) error {
	if err := replaceFile(f.path, f.ring.Seal(plain, f.place)); err != nil {
		return fmt.Errorf("write %s: %w", f.path, err)
	}
	return nil
}

// replaceFile writes beside path, syncs, renames over it and syncs the folder.
// The name beside it is fixed, so a crash leaves at most one file behind, which
// the next write takes over.
func replaceFile(path string, data []byte) error {
	beside := path + ".tmp"
	out, err := os.OpenFile(beside, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer out.Close() // Closed twice when all goes well, which does nothing.
	if err := out.Chmod(0o600); err != nil {
		return err
	}
	if _, err := out.Write(data); err != nil {
		return err
	}
	if err := out.Sync(); err != nil {
		return err
	}
	if err := out.Close(); err != nil {
		return err
	}
	if err := os.Rename(beside, path); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// SyncDir makes the names in a folder durable.
func SyncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
