//go:build !linux

package docker

import "skep/cluster"

// onTmpfs fails: only Linux has a tmpfs.
func onTmpfs(dir string) error {
	return cluster.Errorf(cluster.ErrUnsupported, "there is no tmpfs for %s on this system", dir)
}

func unmount(string) {}
