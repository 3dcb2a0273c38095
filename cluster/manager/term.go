package manager

import (
	"errors"
	"fmt"

	"github.com/hashicorp/raft"

	"skep/cluster/manager/peers"
)

// The names under which raft keeps its promises.
var (
	keyTerm     = []byte("CurrentTerm")
	keyVoteTerm = []byte("LastVoteTerm")
)

// resetTerm takes an absurd term back to that of the last entry, before a manager goes on
// alone: at the last term there is no election any more. Nobody else has a vote then to
// whom anything was promised in it.
func resetTerm(log raft.LogStore, stable raft.StableStore, snapshots raft.SnapshotStore) (was uint64, err error) {
	was, err = stable.GetUint64(keyTerm)
	if err != nil && err.Error() != "not found" { // as raft itself asks
		return 0, fmt.Errorf("read the term: %w", err)
	}
	last, err := lastTerm(log, snapshots)
	if err != nil {
		return 0, err
	}
	if !peers.Absurd(last, was) {
		return 0, nil
	}
	return was, errors.Join(stable.SetUint64(keyVoteTerm, last), stable.SetUint64(keyTerm, last))
}

// lastTerm is the term of the last entry there is.
func lastTerm(log raft.LogStore, snapshots raft.SnapshotStore) (uint64, error) {
	index, err := log.LastIndex()
	if err != nil {
		return 0, fmt.Errorf("read the last index: %w", err)
	}
	if index > 0 {
		var entry raft.Log
		if err := log.GetLog(index, &entry); err != nil {
			return 0, fmt.Errorf("read entry %d: %w", index, err)
		}
		return entry.Term, nil
	}
	list, err := snapshots.List()
	if err != nil || len(list) == 0 {
		return 0, err
	}
	return list[0].Term, nil
}
