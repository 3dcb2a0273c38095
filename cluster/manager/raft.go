package manager

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"skep/cluster"
	"skep/cluster/manager/peers"
)

// startRaft restores the last snapshot and joins the group of managers.
func (m *Manager) startRaft() (*raft.Raft, error) {
	logger := raftLogger(m.log)
	config := raft.DefaultConfig()
	config.LocalID = raft.ServerID(m.cfg.NodeID)
	config.HeartbeatTimeout = m.cfg.HeartbeatTimeout
	config.ElectionTimeout = m.cfg.HeartbeatTimeout
	config.LeaderLeaseTimeout = m.cfg.HeartbeatTimeout
	peers.Tune(config)
	config.BatchApplyCh = true
	config.NoLegacyTelemetry = true
	config.Logger = logger
	// Snapshots are taken by compact, which looks at bytes as well.
	config.SnapshotThreshold = 1 << 62
	config.SnapshotInterval = 24 * time.Hour
	config.TrailingLogs = m.keeping().Trailing
	alone := raft.Configuration{Servers: []raft.Server{{ID: config.LocalID, Address: raft.ServerAddress(m.cfg.Addr)}}}
	if m.cfg.NewLineage != "" {
		if err := m.goOnAlone(config, alone); err != nil {
			return nil, fmt.Errorf("go on without the other managers: %w", err)
		}
	}
	if m.cfg.Bootstrap != nil {
		err := raft.BootstrapCluster(config, m.disk.Log, m.disk.Stable, m.disk.Snapshots, m.transport, alone)
		if err != nil && !errors.Is(err, raft.ErrCantBootstrap) {
			return nil, fmt.Errorf("bootstrap raft: %w", err)
		}
	}
	r, err := raft.NewRaft(config, &m.fsm, m.disk.Log, m.disk.Stable, m.disk.Snapshots, m.transport)
	if err != nil {
		return nil, fmt.Errorf("start raft: %w", err)
	}
	m.transport.Started(r, m.disk.Log)
	return r, nil
}

// countingFSM is the store's FSM, which also counts the bytes it applies: what a
// restart would have to read again.
type countingFSM struct {
	raft.FSM
	bytes atomic.Uint64
}

// Apply counts and applies.
func (f *countingFSM) Apply(log *raft.Log) any {
	f.bytes.Add(uint64(len(log.Data)))
	return f.FSM.Apply(log)
}

// servers are those of raft's configuration, each with the address where it is now.
func (m *Manager) servers() []raft.Server { return m.transport.Servers() }

// keeping is what this manager keeps of raft's log, as its copy of the database
// says.
func (m *Manager) keeping() cluster.RaftKeeping {
	record := m.store.View().Cluster()
	keeping := record.RaftKeeping()
	if m.cfg.SnapshotEntries != 0 {
		if keeping.Trailing == keeping.Interval {
			keeping.Trailing = m.cfg.SnapshotEntries
		}
		keeping.Interval = m.cfg.SnapshotEntries
	}
	return keeping
}

// follow makes raft and the disk keep what it says.
func (m *Manager) follow(keeping cluster.RaftKeeping) error {
	m.reloading.Lock()
	defer m.reloading.Unlock()
	if config := m.raft.ReloadableConfig(); config.TrailingLogs != keeping.Trailing {
		config.TrailingLogs = keeping.Trailing
		if err := m.raft.ReloadConfig(config); err != nil {
			return fmt.Errorf("keep %d trailing entries: %w", keeping.Trailing, err)
		}
	}
	return m.disk.Keep(keeping.Snapshots)
}

// snapshotPatience is how long snapshots may fail before that is an error.
const snapshotPatience = 30 * time.Second

// compact takes a snapshot when enough was applied since the last one, by bytes
// or by entries.
func (m *Manager) compact(ctx context.Context) error {
	lastBytes, lastIndex := m.fsm.bytes.Load(), m.raft.AppliedIndex()
	size := m.snapshotSize()
	// Raft takes none while a change of its configuration isn't applied yet, which is soon.
	failing := cluster.Complaint{Log: m.log, Level: slog.LevelError, Patience: snapshotPatience, Now: m.cfg.Now}
	for {
		keeping := m.keeping()
		if err := m.follow(keeping); err != nil {
			m.log.Error("follow the cluster's spec", "node", m.cfg.NodeID, "err", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
		bytes, index := m.fsm.bytes.Load(), m.raft.AppliedIndex()
		if !snapshotDue(bytes-lastBytes, index-lastIndex, size, m.cfg.SnapshotBytes, keeping.Interval) {
			continue
		}
		err := m.raft.Snapshot().Error()
		if errors.Is(err, raft.ErrNothingNewToSnapshot) {
			err = nil
		}
		if failing.About(err, "no snapshot can be taken, so the log grows", "snapshots can be taken again", "node", m.cfg.NodeID, "index", index); err != nil {
			m.log.Debug("take snapshot", "node", m.cfg.NodeID, "index", index, "err", err)
			continue
		}
		lastBytes, lastIndex = bytes, index
		size = m.snapshotSize()
	}
}

// snapshotDue tells whether so many bytes and entries since the last snapshot, which has
// size bytes, are enough for another. A large database isn't written again before half as
// much has come.
func snapshotDue(bytes, entries, size, limit, interval uint64) bool {
	return bytes >= max(limit, size/2) || entries >= interval
}

// snapshotSize is how many bytes the newest snapshot has; 0 when there is none.
func (m *Manager) snapshotSize() uint64 {
	list, err := m.disk.Snapshots.List()
	if err != nil || len(list) == 0 {
		return 0
	}
	return uint64(max(list[0].Size, 0))
}

// Reencrypt brings all of this manager's log and snapshots under the key that the ring
// seals with now. When it returns nil, none of them needs an older key.
func (m *Manager) Reencrypt() error {
	return m.disk.Reencrypt(func() error { return m.raft.Snapshot().Error() })
}

// raftLogger passes raft's log lines on to log. That managers come, go and lead is said
// by watch and changeLog, and what happens to the disk by store; so raft's lines are for
// debugging, but for errors that aren't about another manager.
func raftLogger(log *slog.Logger) hclog.Logger {
	logger := hclog.NewInterceptLogger(&hclog.LoggerOptions{Name: "raft", Level: hclog.Info, Output: io.Discard})
	logger.RegisterSink(sink{log})
	return logger
}

type sink struct{ log *slog.Logger }

// aboutPeers begin the errors of raft that are about another manager, or that whoever
// asked says himself.
var aboutPeers = []string{
	"failed to appendEntries to", "failed to heartbeat to", "failed to make requestVote RPC", "failed to start pipeline", "failed to pipeline",
	"failed to send snapshot to", "failed to install snapshot", "failed to receive whole snapshot", "failed to copy snapshot", "peer has newer term",
	"failed to decode incoming command", "failed to flush response", "failed to accept connection", "target does not support", "failed to take snapshot",
}

func (s sink) Accept(_ string, level hclog.Level, msg string, args ...any) {
	to := slog.LevelDebug
	about := func(begin string) bool { return strings.HasPrefix(msg, begin) }
	if level >= hclog.Error && !slices.ContainsFunc(aboutPeers, about) {
		to = slog.LevelWarn
	}
	s.log.Log(context.Background(), to, "raft: "+msg, args...)
}
