package docker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/swarm"

	"skep/agent"
	"skep/cluster"
)

// filer keeps the files of tasks' secrets and configs where containers can have
// them mounted: below dir, on a tmpfs, in <node>/<task>/<number>. A node's
// directory is there only while a task of the node has files.
type filer struct {
	dir string

	mu sync.Mutex // guards placed, and the directories
	// placed are the directories of tasks, by task.
	placed map[string]string
}

// place writes a task's files, in the place of what is there, and returns how a
// container mounts them.
func (f *filer) place(nodeID, taskID string, files []agent.File) ([]mount.Mount, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	nodeDir := filepath.Join(f.dir, nodeID)
	if err := onTmpfs(nodeDir); err != nil {
		return nil, cluster.Errorf(cluster.ErrUnsupported, "keep secrets and configs in memory: %v: start the daemon as root, or with --runtime-dir on a tmpfs", err)
	}
	dir := filepath.Join(nodeDir, taskID)
	f.placed[taskID] = dir
	mounts, err := write(dir, files)
	if err != nil {
		f.forgetLocked(taskID)
		return nil, fmt.Errorf("keep secrets and configs of the task: %w", err)
	}
	return mounts, nil
}

func write(dir string, files []agent.File) ([]mount.Mount, error) {
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	var mounts []mount.Mount
	for i, file := range files {
		path := filepath.Join(dir, strconv.Itoa(i))
		if err := writeFile(path, file); err != nil {
			return nil, err
		}
		mounts = append(mounts, mount.Mount{Type: mount.TypeBind, Source: path, Target: file.Target, ReadOnly: true})
	}
	return mounts, nil
}

func writeFile(path string, file agent.File) (err error) {
	out, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if _, err := out.Write(file.Data); err != nil {
		return err
	}
	if err := out.Chown(file.UID, file.GID); err != nil {
		return err
	}
	return out.Chmod(file.Mode)
}

// forget removes a task's files, if there are any.
func (f *filer) forget(taskID string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.forgetLocked(taskID)
}

func (f *filer) forgetLocked(taskID string) {
	dir, ok := f.placed[taskID]
	if !ok {
		return
	}
	// On a tmpfs this doesn't fail; what would be left, sweep finds at the next start.
	if os.RemoveAll(dir) != nil {
		return
	}
	delete(f.placed, taskID)
	release(filepath.Dir(dir))
}

// sweep takes over the files that another run of the daemon left for tasks of the
// node that still have a container, and removes those of the others.
func (f *filer) sweep(nodeID string, lives func(taskID string) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	nodeDir := filepath.Join(f.dir, nodeID)
	entries, err := os.ReadDir(nodeDir)
	if err != nil {
		return // mostly, there is none
	}
	for _, entry := range entries {
		taskID := entry.Name()
		if f.placed[taskID] != "" {
			continue // its container may be newer than the list
		}
		f.placed[taskID] = filepath.Join(nodeDir, taskID)
		if !lives(taskID) {
			f.forgetLocked(taskID)
		}
	}
	release(nodeDir)
}

// forgetNode removes the files of all tasks of a node, also of those that run.
func (f *filer) forgetNode(nodeID string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	nodeDir := filepath.Join(f.dir, nodeID)
	entries, err := os.ReadDir(nodeDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove secrets and configs of a node: %w", err)
	}
	var errs []error
	for _, entry := range entries {
		if err := os.RemoveAll(filepath.Join(nodeDir, entry.Name())); err != nil {
			errs = append(errs, fmt.Errorf("remove secrets and configs of a node: %w", err))
			continue
		}
		delete(f.placed, entry.Name())
	}
	release(nodeDir)
	return errors.Join(errs...)
}

// release unmounts and removes a node's directory that is empty.
func release(nodeDir string) {
	if entries, err := os.ReadDir(nodeDir); err != nil || len(entries) > 0 {
		return
	}
	unmount(nodeDir)
	// It is kept when it isn't empty after all: the tmpfs hid something.
	_ = os.Remove(nodeDir)
}

// lacksFile tells whether a create failed because the engine doesn't see the files.
func (f *filer) lacksFile(err error) bool {
	return err != nil && strings.Contains(err.Error(), f.dir+"/") && strings.Contains(err.Error(), "does not exist")
}

// Forget removes the files of secrets and configs of all tasks of the node.
func (d *Driver) Forget(nodeID string) error { return d.filer.forgetNode(nodeID) }

// files writes what the task sees of secrets and configs.
func (d *Driver) files(ctx context.Context, a agent.Assignment) ([]mount.Mount, error) {
	files, err := a.Files()
	if err != nil || len(files) == 0 {
		return nil, err
	}
	if err := d.checkEngine(ctx, a.Revision.Spec.ContainerSpec); err != nil {
		return nil, err
	}
	return d.filer.place(a.Task.NodeID, a.Task.ID, files)
}

// checkEngine refuses engines whose containers couldn't read the files. It asks
// the engine once: these are settings of the machine.
func (d *Driver) checkEngine(ctx context.Context, spec *swarm.ContainerSpec) error {
	d.mu.Lock()
	options := d.security
	d.mu.Unlock()
	if options == nil {
		ctx, cancel := context.WithTimeout(ctx, d.cfg.Timeout)
		defer cancel()
		info, err := d.client.Info(ctx)
		if err != nil {
			return explain(err)
		}
		options = append([]string{}, info.SecurityOptions...)
		d.mu.Lock()
		d.security = options
		d.mu.Unlock()
	}
	return checkSecurity(options, spec)
}

func checkSecurity(options []string, spec *swarm.ContainerSpec) error {
	for _, option := range options {
		name, _, _ := strings.Cut(strings.TrimPrefix(option, "name="), ",")
		switch p := spec.Privileges; {
		case name == "userns", name == "rootless":
			return cluster.Errorf(cluster.ErrUnsupported, "secrets and configs are not supported on an engine that maps users (%s): run its daemon without that", name)
		case name == "selinux" && (p == nil || p.SELinuxContext == nil || !p.SELinuxContext.Disable):
			return cluster.Errorf(cluster.ErrUnsupported, "secrets and configs are not supported on an engine with SELinux: set Privileges.SELinuxContext.Disable in the service's container spec")
		}
	}
	return nil
}

// ensureDir makes a directory that only root may look into.
func ensureDir(dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return os.Chmod(dir, 0o700)
}
