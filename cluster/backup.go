package cluster

import "github.com/docker/docker/api/types/swarm"

// BackupRequest asks for the whole database, sealed under Key: POST /skep/v1/backup.
// The answer is the sealed stream.
type BackupRequest struct {
	// Key is 32 bytes, made from the user's passphrase by whoever asks.
	Key []byte
}

// RestoreRequest makes the first manager of the cluster that a backup is of out of a
// node that is in none: POST /skep/v1/restore. The answer is the node's ID.
type RestoreRequest struct {
	// Path is a file on the node's machine that has the sealed stream from byte Offset on.
	Path   string
	Offset int64
	// Key is the one that the backup was made with.
	Key []byte
	// ListenAddr, AdvertiseAddr and Availability are as in swarm.InitRequest.
	ListenAddr, AdvertiseAddr string
	Availability              swarm.NodeAvailability
}
