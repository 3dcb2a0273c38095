// Package campaign decides when a manager stands for election: sooner than raft by itself
// would, and only if most managers miss the leader.
//
// cluster/manager makes one Campaign and runs it while it runs.
package campaign
