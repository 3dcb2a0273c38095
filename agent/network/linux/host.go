package linux

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// hostRoot is where the machine's root directory is: elsewhere than at / for a daemon in a container,
// whose image has no iptables and whose /proc/sys can't be written. It doesn't change after UseHost.
var hostRoot string

// UseHost has everything in this package use the machine whose root directory that is. It is called before
// all else, if at all.
func UseHost(root string) { hostRoot = root }

// where programs of iptables may be on the machine.
var programDirs = []string{"/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"}

// findProgram finds a program of the machine.
func findProgram(name string) (string, error) {
	if hostRoot == "" {
		return exec.LookPath(name)
	}
	for _, dir := range programDirs {
		path := filepath.Join(dir, name)
		if _, err := os.Lstat(hostRoot + path); err == nil { // What a link leads to is known to the machine only.
			return path, nil
		}
	}
	return "", exec.ErrNotFound
}

// hostCommand is a program of the machine, to be run as the machine would.
func hostCommand(ctx context.Context, program string, args ...string) *exec.Cmd {
	if path, err := findProgram(program); err == nil {
		program = path
	}
	cmd := exec.CommandContext(ctx, program, args...)
	if hostRoot != "" {
		cmd.Dir, cmd.SysProcAttr = "/", &syscall.SysProcAttr{Chroot: hostRoot}
	}
	return cmd
}
