package main

import (
	"archive/tar"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/client"
	"github.com/spf13/cobra"
)

// supportText is the dump's first file.
const supportText = `What somebody needs who helps with a cluster of skep that is in trouble.

In it: versions, the state of nodes, services and tasks, names of networks, secrets and configs, the metrics
and goroutines of the node that was asked.

Not in it: data of secrets and configs, join tokens, the unlock key, certificates and keys, values of
environment variables, of labels and of options, commands with their arguments, logs of tasks. Messages of
engines about tasks that failed are in it as they are.

The daemon's own log isn't kept by skep. Where systemd runs the daemon: journalctl -u skep --since -1h
A file whose name ends with .error says why something is missing.
`

func newSupportCommand(dockerCLI command.Cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "support",
		Short: "Collect what somebody needs who helps with a cluster in trouble",
		Args:  cli.NoArgs,
		RunE:  command.ShowHelp(dockerCLI.Err()),
	}
	dump := &cobra.Command{
		Use:   "dump [FILE]",
		Short: "Write state, metrics and versions into a file for somebody who helps, without secrets",
		Long: `Write state, metrics and versions into a file (tar, gzip) for somebody who helps, without
secrets, keys, tokens and values of environment variables, and list what is in it. FILE is
skep-support-DATE-TIME.tar.gz in this directory unless it is given; - is standard output.
What can't be had, such as when there is no leader, is left out and said.`,
		Args: cli.RequiresMaxArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			now := time.Now().UTC()
			path := "skep-support-" + now.Format("20060102-150405") + ".tar.gz"
			if len(args) > 0 {
				path = args[0]
			}
			if path == "-" {
				return writeDump(cmd.Context(), dockerCLI.Client(), dockerCLI.Out(), dockerCLI.Err(), now)
			}
			file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
			if err != nil {
				return fmt.Errorf("write the dump: %w", err)
			}
			err = errors.Join(writeDump(cmd.Context(), dockerCLI.Client(), file, dockerCLI.Out(), now), file.Close())
			if err != nil {
				return errors.Join(err, os.Remove(path))
			}
			_, err = fmt.Fprintln(dockerCLI.Out(), path)
			return err
		},
	}
	cmd.AddCommand(dump)
	return cmd
}

// supportLimit is how long one part of the dump may take, and supportBytes how large it may be.
const (
	supportLimit = 30 * time.Second
	supportBytes = 64 << 20
)

// writeDump writes the dump to out, and lists its files to told.
func writeDump(ctx context.Context, c client.APIClient, out, told io.Writer, now time.Time) error {
	zipped := gzip.NewWriter(out)
	files := tar.NewWriter(zipped)
	add := func(name string, data []byte) error {
		header := &tar.Header{Name: "skep-support/" + name, Mode: 0o600, Size: int64(len(data)), ModTime: now, Format: tar.FormatPAX}
		if err := files.WriteHeader(header); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
		if _, err := files.Write(data); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
		_, err := fmt.Fprintf(told, "%8d  %s\n", len(data), name)
		return err
	}
	if err := add("README.txt", []byte(supportText)); err != nil {
		return err
	}
	for _, part := range supportParts {
		limited, cancel := context.WithTimeout(ctx, supportLimit)
		data, err := part.read(limited, c)
		cancel()
		name := part.name
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			name, data = name+".error", []byte(err.Error()+"\n")
		}
		if err := add(name, data); err != nil {
			return err
		}
	}
	return errors.Join(files.Close(), zipped.Close())
}

// supportParts are the files of a dump. What they have is taken over field by field: what isn't
// named here isn't in it.
var supportParts = []struct {
	name string
	read func(context.Context, client.APIClient) ([]byte, error)
}{
	{"versions.json", asFile(func(ctx context.Context, c client.APIClient) (any, error) {
		server, err := c.ServerVersion(ctx)
		return map[string]string{"Command": version, "Go": runtime.Version(), "Daemon": server.Version, "API": server.APIVersion, "Kernel": server.KernelVersion}, err
	})},
	{"status.json", asFile(func(ctx context.Context, c client.APIClient) (any, error) { return fetchStatus(ctx, c) })},
	{"node.json", asFile(func(ctx context.Context, c client.APIClient) (any, error) {
		i, err := c.Info(ctx)
		return map[string]any{
			"Name": i.Name, "OperatingSystem": i.OperatingSystem, "Kernel": i.KernelVersion, "Architecture": i.Architecture,
			"CPUs": i.NCPU, "Memory": i.MemTotal, "Engine": i.ServerVersion, "StorageDriver": i.Driver, "CgroupVersion": i.CgroupVersion,
			"NodeID": i.Swarm.NodeID, "State": i.Swarm.LocalNodeState, "Manager": i.Swarm.ControlAvailable, "Error": i.Swarm.Error,
			"Warnings": slices.Concat(i.Warnings, i.Swarm.Warnings),
		}, err
	})},
	{"cluster.json", asFile(func(ctx context.Context, c client.APIClient) (any, error) {
		s, err := c.SwarmInspect(ctx)
		return map[string]any{
			"ID": s.ID, "Version": s.Version.Index, "CreatedAt": s.CreatedAt, "UpdatedAt": s.UpdatedAt,
			"Autolock": s.Spec.EncryptionConfig.AutoLockManagers, "CertificatesLast": s.Spec.CAConfig.NodeCertExpiry.String(),
			"RootRotation": s.RootRotationInProgress, "TaskHistory": s.Spec.Orchestration.TaskHistoryRetentionLimit,
			"Pools": s.DefaultAddrPool, "DataPathPort": s.DataPathPort, "LabelKeys": slices.Sorted(maps.Keys(s.Spec.Labels)),
		}, err
	})},
	{"nodes.json", asFile(func(ctx context.Context, c client.APIClient) (any, error) {
		list, err := c.NodeList(ctx, swarm.NodeListOptions{})
		return each(list, func(n swarm.Node) any {
			return map[string]any{
				"ID": n.ID, "Hostname": n.Description.Hostname, "Role": n.Spec.Role, "Availability": n.Spec.Availability, "Status": n.Status,
				"Manager": n.ManagerStatus, "Engine": n.Description.Engine.EngineVersion, "Platform": n.Description.Platform,
				"Resources": n.Description.Resources, "LabelKeys": slices.Sorted(maps.Keys(n.Spec.Labels)), "Version": n.Version.Index,
			}
		}), err
	})},
	{"services.json", asFile(func(ctx context.Context, c client.APIClient) (any, error) {
		list, err := c.ServiceList(ctx, swarm.ServiceListOptions{Status: true})
		return each(list, supportService), err
	})},
	{"tasks.json", asFile(func(ctx context.Context, c client.APIClient) (any, error) {
		list, err := c.TaskList(ctx, swarm.TaskListOptions{})
		return each(list, func(t swarm.Task) any {
			return map[string]any{
				"ID": t.ID, "Service": t.ServiceID, "Slot": t.Slot, "Node": t.NodeID, "Desired": t.DesiredState, "State": t.Status.State,
				"Since": t.Status.Timestamp, "Message": t.Status.Message, "Err": t.Status.Err, "CreatedAt": t.CreatedAt, "UpdatedAt": t.UpdatedAt,
			}
		}), err
	})},
	{"networks.json", asFile(func(ctx context.Context, c client.APIClient) (any, error) {
		list, err := c.NetworkList(ctx, network.ListOptions{})
		return each(list, func(n network.Summary) any {
			return map[string]any{
				"ID": n.ID, "Name": n.Name, "Driver": n.Driver, "Scope": n.Scope, "Internal": n.Internal, "Attachable": n.Attachable,
				"Ingress": n.Ingress, "IPv6": n.EnableIPv6, "Subnets": n.IPAM.Config, "OptionKeys": slices.Sorted(maps.Keys(n.Options)),
			}
		}), err
	})},
	{"secrets.json", asFile(func(ctx context.Context, c client.APIClient) (any, error) {
		list, err := c.SecretList(ctx, swarm.SecretListOptions{})
		return each(list, func(s swarm.Secret) any {
			return map[string]any{"ID": s.ID, "Name": s.Spec.Name, "CreatedAt": s.CreatedAt}
		}), err
	})},
	{"configs.json", asFile(func(ctx context.Context, c client.APIClient) (any, error) {
		list, err := c.ConfigList(ctx, swarm.ConfigListOptions{})
		return each(list, func(s swarm.Config) any {
			return map[string]any{"ID": s.ID, "Name": s.Spec.Name, "CreatedAt": s.CreatedAt}
		}), err
	})},
	{"metrics.txt", download("/metrics")},
	{"goroutines.txt", download("goroutines")},
}

// supportService is what of a service is in a dump.
func supportService(s swarm.Service) any {
	shown := map[string]any{
		"ID": s.ID, "Name": s.Spec.Name, "Version": s.Version.Index, "CreatedAt": s.CreatedAt, "UpdatedAt": s.UpdatedAt,
		"Mode": s.Spec.Mode, "Status": s.ServiceStatus, "UpdateStatus": s.UpdateStatus, "Update": s.Spec.UpdateConfig, "Rollback": s.Spec.RollbackConfig,
		"Ports": s.Endpoint.Ports, "EndpointMode": s.Endpoint.Spec.Mode, "ForceUpdate": s.Spec.TaskTemplate.ForceUpdate,
		"LabelKeys": slices.Sorted(maps.Keys(s.Spec.Labels)), "Resources": s.Spec.TaskTemplate.Resources,
		"Placement": s.Spec.TaskTemplate.Placement, "Restart": s.Spec.TaskTemplate.RestartPolicy,
	}
	var networks []string
	for _, n := range s.Spec.TaskTemplate.Networks {
		networks = append(networks, n.Target)
	}
	shown["Networks"] = networks
	spec := s.Spec.TaskTemplate.ContainerSpec
	if spec == nil {
		return shown
	}
	var env, secrets, configs, mounts []string
	for _, e := range spec.Env {
		name, _, _ := strings.Cut(e, "=")
		env = append(env, name)
	}
	for _, r := range spec.Secrets {
		secrets = append(secrets, cmp.Or(r.SecretName, r.SecretID))
	}
	for _, r := range spec.Configs {
		configs = append(configs, cmp.Or(r.ConfigName, r.ConfigID))
	}
	for _, m := range spec.Mounts {
		mounts = append(mounts, string(m.Type)+" at "+m.Target)
	}
	shown["Image"], shown["EnvironmentNames"], shown["Secrets"], shown["Configs"], shown["Mounts"] = spec.Image, env, secrets, configs, mounts
	shown["Healthcheck"], shown["StopGracePeriod"] = spec.Healthcheck != nil, spec.StopGracePeriod
	return shown
}

// each describes the elements of a list.
func each[T any](list []T, describe func(T) any) []any {
	shown := make([]any, 0, len(list))
	for _, v := range list {
		shown = append(shown, describe(v))
	}
	return shown
}

// asFile makes a file, in JSON, of what is read.
func asFile(read func(context.Context, client.APIClient) (any, error)) func(context.Context, client.APIClient) ([]byte, error) {
	return func(ctx context.Context, c client.APIClient) ([]byte, error) {
		v, err := read(ctx, c)
		if err != nil {
			return nil, err
		}
		return json.MarshalIndent(v, "", "  ")
	}
}

// download makes a file of an answer as it is.
func download(path string) func(context.Context, client.APIClient) ([]byte, error) {
	return func(ctx context.Context, c client.APIClient) ([]byte, error) {
		answer, err := open(ctx, c, http.MethodGet, path, nil)
		if err != nil {
			return nil, err
		}
		defer answer.Body.Close()
		data, err := io.ReadAll(io.LimitReader(answer.Body, supportBytes+1))
		if len(data) > supportBytes {
			return nil, fmt.Errorf("it has more than %d MiB", supportBytes>>20)
		}
		return data, err
	}
}
