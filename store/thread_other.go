//go:build !linux

package store

// threadID and threadWaits: only Linux tells of threads.
func threadID() int { return 0 }

func threadWaits(int) bool { return true }
