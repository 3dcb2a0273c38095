package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

// TestAttack_CrashLeavesNoCore crashes a daemon as one who looks for its keys would have
// it: with any limit for core files, also one that was raised after it began.
func TestAttack_CrashLeavesNoCore(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("limits are raised by root alone")
	}
	most := syscall.Rlimit{Cur: ^uint64(0), Max: ^uint64(0)}
	if err := setLimit(os.Getpid(), &most); err != nil {
		t.Skip(err)
	}
	for _, raised := range []bool{false, true} {
		dir := t.TempDir()
		socket := filepath.Join(dir, "skep.sock")
		daemon := exec.Command(os.Args[0], "daemon", "--driver", "simulate", "--engine", "", "--data-dir", filepath.Join(dir, "data"), "--host", "unix://"+socket)
		daemon.Env = append(os.Environ(), asCommand+"=1", "GOTRACEBACK=crash")
		daemon.Dir = dir
		if err := daemon.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = daemon.Process.Kill() }) // unless it ended
		deadline := time.Now().Add(time.Minute)
		for _, err := os.Stat(socket); err != nil; _, err = os.Stat(socket) {
			if time.Now().After(deadline) {
				t.Fatal("the daemon doesn't begin")
			}
			time.Sleep(10 * time.Millisecond)
		}
		if raised && setLimit(daemon.Process.Pid, &most) != nil {
			t.Log("the limit can't be raised here") // without CAP_SYS_RESOURCE
		}
		if err := daemon.Process.Signal(syscall.SIGABRT); err != nil {
			t.Fatal(err)
		}
		var ended *exec.ExitError
		if err := daemon.Wait(); !errors.As(err, &ended) {
			t.Fatalf("it ended with %v", err)
		}
		if status := ended.Sys().(syscall.WaitStatus); !status.Signaled() || status.CoreDump() {
			t.Errorf("limit raised: %v: it ended with %v", raised, ended)
		}
	}
	// Where the limit can't be raised, that says nothing of what takes core files.
	if err := noDumps(); err != nil {
		t.Fatal(err)
	}
	dumpable, _, _ := syscall.RawSyscall(syscall.SYS_PRCTL, syscall.PR_GET_DUMPABLE, 0, 0)
	if _, _, failed := syscall.RawSyscall(syscall.SYS_PRCTL, syscall.PR_SET_DUMPABLE, 1, 0); dumpable != 0 || failed != 0 {
		t.Errorf("it can be dumped: %d, %v", dumpable, failed)
	}
}

func setLimit(pid int, limit *syscall.Rlimit) error {
	if _, _, err := syscall.RawSyscall6(syscall.SYS_PRLIMIT64, uintptr(pid), syscall.RLIMIT_CORE, uintptr(unsafe.Pointer(limit)), 0, 0, 0); err != 0 {
		return err
	}
	return nil
}
