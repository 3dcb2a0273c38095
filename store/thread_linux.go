package store

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"syscall"
)

// threadID is the kernel's number of the thread that calls it.
func threadID() int { return syscall.Gettid() }

// threadWaits tells whether a thread of this process waits within the kernel for
// something but another thread or a processor. A write that has all it needs of the
// disk, and no processor to go on with, says nothing about the disk.
func threadWaits(thread int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/syscall", thread))
	if err != nil {
		return true // This kernel doesn't tell.
	}
	call, _, _ := bytes.Cut(text, []byte(" "))
	if string(bytes.TrimSpace(call)) == "running" {
		return false
	}
	number, err := strconv.Atoi(string(call)) // -1 for a page that is read
	return err != nil || number != syscall.SYS_FUTEX && number != syscall.SYS_NANOSLEEP && number != syscall.SYS_SCHED_YIELD
}
