package manager

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"skep/cluster"
)

// A manager whose disk hangs ends, so that the others go on without it: as the leader it
// would keep its lead, and nothing could be written. But it ends only if they can. A lone
// manager would gain nothing, and with autolock it would stay locked; several whose disks
// hang at once, as those on one storage do, would all be gone when it comes back.

// othersSuffice tells whether the others can go on without this manager: enough of them
// answer, and their disks do. A disk that hangs may have had nothing to write since, so
// each tries a write.
func (m *Manager) othersSuffice() bool {
	if !m.opened.Load() {
		return true // It does nothing yet, so the others go on without it already.
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*m.cfg.HeartbeatTimeout)
	defer cancel()
	servers := m.servers()
	answer := make([]bool, len(servers))
	var asked sync.WaitGroup
	for i, server := range servers {
		if server.Suffrage == raft.Voter && string(server.ID) != m.cfg.NodeID {
			asked.Go(func() {
				health, err := m.askHealth(ctx, string(server.Address), withDisk)
				answer[i] = err == nil && health.DiskAnswers
			})
		}
	}
	asked.Wait()
	return isQuorum(servers, answer)
}

// isQuorum tells whether those of the servers that answer are a quorum.
func isQuorum(servers []raft.Server, answer []bool) bool {
	voters, well := 0, 0
	for i, server := range servers {
		if server.Suffrage != raft.Voter {
			continue
		}
		voters++
		if answer[i] {
			well++
		}
	}
	return well > voters/2
}

// diskTry tries a write, for less time than whoever asks for it waits.
func (m *Manager) diskTry(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 3*m.cfg.HeartbeatTimeout/2)
	defer cancel()
	return m.disk.Hung() == 0 && m.disk.Answers(ctx)
}

// diskTrouble is what is said of a manager's disk; empty when all is well.
func diskTrouble(health cluster.ManagerHealth) string {
	if health.DiskHung == 0 {
		return ""
	}
	return "its disk hasn't taken a write for " + health.DiskHung.Round(time.Second).String() +
		": it waits, since too few other managers are there, or their disks hang too, to go on without it; look for errors of the disk in the kernel's log"
}
