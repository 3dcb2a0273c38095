package api

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/store"
)

const (
	// clusterName is the only name a cluster has.
	clusterName = "default"
	// minCertExpiry is the shortest life of a node's certificate.
	minCertExpiry = time.Hour
	// initTimeout and joinTimeout bound these, which wait for other nodes.
	initTimeout = 30 * time.Second
	joinTimeout = 20 * time.Second
	// leaveTimeout bounds a manager's handing over.
	leaveTimeout = 30 * time.Second
)

func (s *Server) initSwarm(ctx context.Context, r *request) (response, error) {
	if err := s.refuseLocked(); err != nil {
		return response{}, err
	}
	var wanted swarm.InitRequest
	if err := r.decode(&wanted); err != nil {
		return response{}, err
	}
	if r.before("1.39") {
		wanted.DefaultAddrPool, wanted.SubnetSize = nil, 0
	}
	if r.before("1.40") {
		wanted.DataPathPort = 0
	}
	if err := s.needListenAddr(wanted.ListenAddr); err != nil {
		return response{}, err
	}
	if err := checkAvailability(wanted.Availability, true); err != nil {
		return response{}, err
	}
	if wanted.Spec.Name == "" {
		wanted.Spec.Name = clusterName
	}
	if err := checkSwarmSpec(wanted.Spec, swarm.Spec{Annotations: swarm.Annotations{Name: clusterName}}); err != nil {
		return response{}, err
	}
	if given := wanted.Spec.CAConfig; given.SigningCACert != "" || given.ForceRotate != 0 {
		return response{}, unsupported("CAConfig.SigningCACert and ForceRotate of a new swarm", "make it with a root CA of its own, and use \"swarm ca --rotate\" then")
	}
	ctx, cancel := context.WithTimeout(ctx, initTimeout)
	defer cancel()
	id, err := s.Node.Init(ctx, wanted)
	if err != nil {
		return response{}, err
	}
	return response{body: id}, nil
}

// needListenAddr refuses an empty address, as Docker does, on a node that is no member yet; a
// member says so first.
func (s *Server) needListenAddr(addr string) error {
	if state := s.Node.Info().LocalNodeState; addr == "" && (state == "" || state == swarm.LocalNodeStateInactive) {
		return fail(cluster.ErrInvalid, `invalid ListenAddr "": invalid empty address`)
	}
	return nil
}

func (s *Server) joinSwarm(ctx context.Context, r *request) (response, error) {
	if err := s.refuseLocked(); err != nil {
		return response{}, err
	}
	var wanted swarm.JoinRequest
	if err := r.decode(&wanted); err != nil {
		return response{}, err
	}
	if err := s.needListenAddr(wanted.ListenAddr); err != nil {
		return response{}, err
	}
	if len(wanted.RemoteAddrs) == 0 {
		return response{}, fail(cluster.ErrInvalid, "at least 1 RemoteAddr is required to join")
	}
	if wanted.JoinToken == "" {
		return response{}, fail(cluster.ErrInvalid, "a join token is necessary to join a swarm: \"docker swarm join-token worker\" on a manager tells it")
	}
	if _, err := cluster.ParseJoinToken(wanted.JoinToken); err != nil {
		return response{}, err
	}
	if err := checkAvailability(wanted.Availability, true); err != nil {
		return response{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	if err := s.Node.Join(ctx, wanted); err != nil {
		if errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil {
			return response{}, fail(cluster.ErrUnavailable, "Timeout was reached before node joined: %v", err)
		}
		return response{}, err
	}
	return response{}, nil
}

func (s *Server) leaveSwarm(ctx context.Context, r *request) (response, error) {
	ctx, cancel := context.WithTimeout(ctx, leaveTimeout)
	defer cancel()
	return response{}, s.Node.Leave(ctx, r.flag("force"))
}

// refuseLocked refuses what a locked node can't do.
func (s *Server) refuseLocked() error {
	if s.Node.Info().LocalNodeState == swarm.LocalNodeStateLocked {
		return fail(cluster.ErrLocked, textLocked)
	}
	return nil
}

func (s *Server) unlockSwarm(ctx context.Context, r *request) (response, error) {
	var given swarm.UnlockRequest
	if err := r.decode(&given); err != nil {
		return response{}, err
	}
	switch s.Node.Info().LocalNodeState {
	case swarm.LocalNodeStateLocked:
	case swarm.LocalNodeStateInactive, "":
		return response{}, fail(cluster.ErrNotManager, textNoSwarm)
	default:
		return response{}, fail(cluster.ErrNotLocked, "swarm is not locked")
	}
	key, err := cluster.ParseUnlockKey(given.UnlockKey)
	if err != nil {
		return response{}, err
	}
	return response{}, s.Node.Unlock(ctx, key)
}

// showUnlockKey shows the key as it is to be kept; empty while autolock is off.
func (s *Server) showUnlockKey(ctx context.Context, r *request) (response, error) {
	record := r.manager.Store().View().Cluster()
	if record == nil {
		return response{}, fail(cluster.ErrUnavailable, "the cluster's record isn't there yet: try again")
	}
	return response{body: swarm.UnlockKeyResponse{UnlockKey: record.UnlockKey.Text()}}, nil
}

func (s *Server) inspectSwarm(ctx context.Context, r *request) (response, error) {
	record := r.manager.Store().View().Cluster()
	if record == nil {
		return response{}, fail(cluster.ErrUnavailable, "the cluster's record isn't there yet: try again")
	}
	return response{body: swarm.Swarm{
		ClusterInfo: renderCluster(record),
		JoinTokens:  swarm.JoinTokens{Worker: record.WorkerToken, Manager: record.ManagerToken},
	}}, nil
}

func (s *Server) updateSwarm(ctx context.Context, r *request) (response, error) {
	var spec swarm.Spec
	if err := r.decode(&spec); err != nil {
		return response{}, err
	}
	index, err := r.index("swarm")
	if err != nil {
		return response{}, err
	}
	worker, err := r.strictFlag("rotateWorkerToken")
	if err != nil {
		return response{}, err
	}
	manager, err := r.strictFlag("rotateManagerToken")
	if err != nil {
		return response{}, err
	}
	unlock, err := r.strictFlag("rotateManagerUnlockKey")
	if err != nil {
		return response{}, err
	}
	return response{}, r.manager.Store().Update(ctx, func(tx *store.Tx) error {
		old := tx.Cluster()
		if old == nil {
			return fail(cluster.ErrUnavailable, "the cluster's record isn't there yet: try again")
		}
		if err := checkSwarmSpec(spec, old.Spec); err != nil {
			return err
		}
		if old.Version != index {
			return fmt.Errorf("update swarm: %w", cluster.ErrConflict)
		}
		next := *old
		next.Spec = cluster.CompleteSpec(spec)
		switch autolock := spec.EncryptionConfig.AutoLockManagers; {
		case !autolock && unlock:
			return fail(cluster.ErrInvalid, "cannot rotate the unlock key because autolock is not turned on")
		case !autolock:
			next.UnlockKey = cluster.UnlockKey{}
		case unlock || old.UnlockKey.None():
			next.UnlockKey = cluster.NewUnlockKey(s.Random)
		}
		given := spec.CAConfig
		// The key is kept with the root alone, and asked for once.
		next.Spec.CAConfig.SigningCACert, next.Spec.CAConfig.SigningCAKey = "", ""
		if given.ForceRotate != old.Spec.CAConfig.ForceRotate || given.SigningCACert != "" {
			if next.Rotation, err = r.manager.NewRoot(old, []byte(given.SigningCACert), []byte(given.SigningCAKey)); err != nil {
				return err
			}
		}
		if worker {
			if next.WorkerToken, err = s.rotate(old.WorkerToken); err != nil {
				return err
			}
		}
		if manager {
			if next.ManagerToken, err = s.rotate(old.ManagerToken); err != nil {
				return err
			}
		}
		return tx.Put(&next)
	})
}

// rotate makes a token of the same CA with a new secret; the old one lets nobody
// in any more.
func (s *Server) rotate(token string) (string, error) {
	old, err := cluster.ParseJoinToken(token)
	if err != nil {
		return "", fmt.Errorf("rotate join token: %w", err)
	}
	return cluster.NewJoinToken(old.Digest, s.Random).String(), nil
}

// checkSwarmSpec refuses a cluster spec that makes no sense, or that changes what
// this version can't change.
func checkSwarmSpec(spec, old swarm.Spec) error {
	spec, old = cluster.CompleteSpec(spec), cluster.CompleteSpec(old)
	if err := cluster.CheckLabels(cluster.OnCluster, spec.Labels); err != nil {
		return err
	}
	expiry := spec.CAConfig.NodeCertExpiry
	switch {
	case spec.Name != old.Name && spec.Name != clusterName:
		return fail(cluster.ErrInvalid, "modification of cluster name is not allowed")
	case expiry != 0 && expiry < minCertExpiry:
		return fail(cluster.ErrInvalid, "minimum certificate expiry time is: %s", minCertExpiry)
	case (spec.CAConfig.SigningCACert == "") != (spec.CAConfig.SigningCAKey == ""):
		return fail(cluster.ErrInvalid, "CAConfig.SigningCACert and SigningCAKey: give both, or none for a root CA that is made here")
	case len(spec.CAConfig.ExternalCAs) > 0:
		return unsupported("CAConfig.ExternalCAs", "leave --external-ca out: the cluster's own CA issues certificates")
	case spec.TaskDefaults.LogDriver != nil && spec.TaskDefaults.LogDriver.Name == "":
		return fail(cluster.ErrInvalid, "TaskDefaults.LogDriver: a name is needed")
	case spec.Raft.ElectionTick != old.Raft.ElectionTick || spec.Raft.HeartbeatTick != old.Raft.HeartbeatTick:
		return unsupported("a change of Raft.ElectionTick and Raft.HeartbeatTick",
			fmt.Sprintf("leave them at %d and %d: managers notice a dead leader within 600 ms, whatever the ticks", old.Raft.ElectionTick, old.Raft.HeartbeatTick))
	case *spec.Raft.KeepOldSnapshots > cluster.MaxOldSnapshots:
		return fail(cluster.ErrInvalid, "Raft.KeepOldSnapshots: %d are more than %d", *spec.Raft.KeepOldSnapshots, cluster.MaxOldSnapshots)
	}
	return cluster.CheckHeartbeat(spec.Dispatcher.HeartbeatPeriod)
}

// checkAvailability refuses unknown words; empty means the default where it may.
func checkAvailability(availability swarm.NodeAvailability, empty bool) error {
	switch availability {
	case swarm.NodeAvailabilityActive, swarm.NodeAvailabilityPause, swarm.NodeAvailabilityDrain:
		return nil
	case "":
		if empty {
			return nil
		}
	}
	return fail(cluster.ErrInvalid, "invalid Availability: %q", string(availability))
}
