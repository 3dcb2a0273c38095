package seal

import (
	"fmt"
	"os"

	"skep/cluster"
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
	if err := cluster.ReplaceFile(f.path, f.ring.Seal(plain, f.place)); err != nil {
		return fmt.Errorf("write %s: %w", f.path, err)
	}
	return nil
}
