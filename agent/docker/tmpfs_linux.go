package docker

import (
	"fmt"
	"os"
	"syscall"
)

// The kinds of file systems that are never on a disk (statfs(2)).
const (
	magicTmpfs = 0x01021994
	magicRamfs = 0x858458f6
)

// onTmpfs makes a directory on a tmpfs: on the one that it is on, if any, which
// also a daemon in a container may share with the engine; else on one of its own.
func onTmpfs(dir string) error {
	if err := ensureDir(dir); err != nil {
		return err
	}
	var at syscall.Statfs_t
	if err := syscall.Statfs(dir, &at); err != nil {
		return fmt.Errorf("look at %s: %w", dir, err)
	}
	if kind := uint32(at.Type); kind == magicTmpfs || kind == magicRamfs {
		return nil
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_NOEXEC|syscall.MS_NOSUID|syscall.MS_NODEV, "mode=0700"); err != nil {
		return fmt.Errorf("mount a tmpfs on %s: %w", dir, err)
	}
	return nil
}

// unmount ends the mount on an empty directory, if it is one.
func unmount(dir string) {
	var at, parent syscall.Stat_t
	if syscall.Stat(dir, &at) != nil || syscall.Stat(dir+string(os.PathSeparator)+"..", &parent) != nil || at.Dev == parent.Dev {
		return
	}
	// When it is busy it stays, and the next task uses it.
	_ = syscall.Unmount(dir, 0)
}
