package main

import (
	"errors"
	"os"
	"syscall"
)

// noDumps has no core file made of this process when it crashes: keys and secrets are in
// its memory. Containers are the engine's children, so they don't have the limit.
func noDumps() error {
	err := syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{})
	if os.Geteuid() == 0 {
		// The limit doesn't hold for a program that takes core files (core_pattern). For
		// another user the process couldn't read its own files in /proc any more, by which
		// it tells a disk that hangs from want of CPU.
		if _, _, failed := syscall.RawSyscall(syscall.SYS_PRCTL, syscall.PR_SET_DUMPABLE, 0, 0); failed != 0 {
			err = errors.Join(err, failed)
		}
	}
	return err
}
