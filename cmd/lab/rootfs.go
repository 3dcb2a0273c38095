package main

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// machineSuite and machinePackages are what a machine is installed from: a Debian with
// systemd, an engine, and what the README's commands need.
const machineSuite = "bookworm"

var machinePackages = []string{
	"systemd-sysv", "dbus", "openssh-server", "docker.io", "iptables", "iproute2", "iputils-ping", "curl", "ca-certificates", "procps", "sudo",
}

// installers are the programs that can make a root file system, the faster one first.
var installers = []string{"mmdebstrap", "debootstrap"}

// rootFile is where the root file system is kept between runs: making it takes minutes. Its
// name changes with what is in it.
func rootFile(cache string) string {
	sum := sha256.Sum256([]byte(machineSuite + " " + strings.Join(machinePackages, " ")))
	return filepath.Join(cache, fmt.Sprintf("machine-%x.tar", sum[:4]))
}

// makeRoot makes the file unless it is there. What is half done has another name, and is
// removed.
func makeRoot(ctx context.Context, path string, log io.Writer) (err error) {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	i := slices.IndexFunc(installers, func(name string) bool { _, err := exec.LookPath(name); return err == nil })
	if i < 0 {
		return fmt.Errorf("there is no %s, and no %s: install one of these Debian packages", strings.Join(installers, ", no "), path)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(filepath.Dir(path), "making-")
	if err != nil {
		return err
	}
	// An installer that was ended may have left file systems mounted below it.
	defer func() { err = errors.Join(err, unmountBelow(dir), os.RemoveAll(dir)) }()
	fmt.Fprintf(log, "install Debian %s by %s, which takes minutes the first time\n", machineSuite, installers[i])
	made, include := filepath.Join(dir, "root.tar"), "--include="+strings.Join(machinePackages, ",")
	switch installers[i] {
	case "mmdebstrap":
		err = tool(ctx, "mmdebstrap", "--variant=minbase", include, "--dpkgopt=force-unsafe-io", machineSuite, made)
	case "debootstrap":
		root := filepath.Join(dir, "root")
		if err = tool(ctx, "debootstrap", "--variant=minbase", include, machineSuite, root); err == nil {
			err = tool(ctx, "tar", "-C", root, "--one-file-system", "--exclude=./proc/*", "--exclude=./sys/*", "--exclude=./var/cache/apt/archives/*.deb", "-cf", made, ".")
		}
	}
	if err != nil {
		return fmt.Errorf("make a root file system: %w", err)
	}
	return os.Rename(made, path)
}

// boot is what a machine starts with, before systemd: what a container lacks of a machine.
const boot = `#!/bin/sh
set -e
# /sys may be written, as on a machine; not all of it can be.
for m in $(awk '$2 ~ "^/sys" || $2 == "/proc/sys" {print $2}' /proc/mounts); do mount -o remount,bind,rw $m 2>/dev/null || true; done
mount --make-rshared /
# What was made with the root file system would be the same on all machines.
if ! [ -e /etc/machine-made ]; then
	tr -d - </proc/sys/kernel/random/uuid >/etc/machine-id
	rm -f /etc/ssh/ssh_host_* && ssh-keygen -qA
	touch /etc/machine-made
fi
exec /sbin/init
`

// masked are the units that would reach for the machine's kernel beneath, which is not theirs,
// or for hardware that isn't there.
var masked = []string{
	"systemd-udevd.service", "systemd-udevd-control.socket", "systemd-udevd-kernel.socket", "systemd-udev-trigger.service",
	"sys-kernel-debug.mount", "sys-kernel-tracing.mount", "sys-kernel-config.mount", "sys-fs-fuse-connections.mount", "dev-hugepages.mount", "dev-mqueue.mount",
	"getty.target", "console-getty.service", "systemd-timesyncd.service", "systemd-remount-fs.service", "systemd-sysctl.service", "systemd-binfmt.service",
	"systemd-modules-load.service", "apt-daily.timer", "apt-daily-upgrade.timer", "e2scrub_all.timer", "fstrim.timer",
}

// set is what a machine gets on top of the root file system, as a tar file: authorized may be
// empty.
func set(authorized []byte) (*bytes.Buffer, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	err := errors.Join(
		add(w, "machine-boot", 0o755, []byte(boot)),
		w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "var/log/journal/", Mode: 0o755}),
		w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "root/.ssh/", Mode: 0o700}),
		add(w, "root/.ssh/authorized_keys", 0o600, authorized),
	)
	for _, unit := range masked {
		err = errors.Join(err, w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: "etc/systemd/system/" + unit, Linkname: "/dev/null"}))
	}
	return &out, errors.Join(err, w.Close())
}
