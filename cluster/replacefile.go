package cluster

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// ReplaceFile makes a file, readable by its owner only, have the content, whole or not at
// all: after a crash it has what it had before, or the content, and the content once
// ReplaceFile has returned nil. It must not be called twice at a time for one path. A crash
// leaves at most path.new behind, which the next call removes.
func ReplaceFile(path string, content []byte) (err error) {
	beside := path + ".new"
	if err := os.Remove(beside); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	file, err := os.OpenFile(beside, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(beside)
		}
	}()
	_, err = file.Write(content)
	if err == nil {
		err = file.Chmod(0o600) // Whatever the umask says.
	}
	if err == nil {
		err = file.Sync()
	}
	if closing := file.Close(); err == nil {
		err = closing
	}
	if err != nil {
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
