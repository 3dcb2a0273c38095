package docker

import (
	"context"
	"encoding/json"
	"io"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"

	"skep/agent"
	"skep/cluster"
)

var _ agent.Sampler = (*Driver)(nil)

// maxStats bounds the engine's account of a container.
const maxStats = 1 << 20

// Usage asks the engine what a container uses.
func (d *Driver) Usage(ctx context.Context, taskID string) (cluster.Usage, error) {
	id, err := d.find(ctx, taskID)
	if err != nil {
		return cluster.Usage{}, err
	}
	answer, err := d.client.ContainerStatsOneShot(ctx, id)
	if err != nil {
		return cluster.Usage{}, explain(err)
	}
	defer answer.Body.Close()
	var stats container.StatsResponse
	if err := json.NewDecoder(io.LimitReader(answer.Body, maxStats)).Decode(&stats); err != nil {
		return cluster.Usage{}, cluster.Errorf(cluster.ErrUnavailable, "read what a container uses: %v", err)
	}
	return usageOf(stats), nil
}

// usageOf counts as `docker stats` does.
func usageOf(stats container.StatsResponse) cluster.Usage {
	u := cluster.Usage{
		At: stats.Read, CPU: time.Duration(stats.CPUStats.CPUUsage.TotalUsage),
		Memory: stats.MemoryStats.Usage, MemoryLimit: stats.MemoryStats.Limit, Processes: stats.PidsStats.Current,
	}
	for _, name := range []string{"total_inactive_file", "inactive_file"} { // of the first and the second version of cgroups
		if cache, ok := stats.MemoryStats.Stats[name]; ok && cache < u.Memory {
			u.Memory -= cache
			break
		}
	}
	for _, network := range stats.Networks {
		u.Received, u.Sent = u.Received+network.RxBytes, u.Sent+network.TxBytes
	}
	for _, disk := range stats.BlkioStats.IoServiceBytesRecursive {
		switch strings.ToLower(disk.Op) {
		case "read":
			u.Read += disk.Value
		case "write":
			u.Written += disk.Value
		}
	}
	return u
}
