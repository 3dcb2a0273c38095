package cluster

import "github.com/docker/docker/api/types/swarm"

// BackupRequest asks for the whole database, as a file of the age tool: POST
// /skep/v1/backup.
type BackupRequest struct {
	// Recipient is whom the file is encrypted for: age1…
	Recipient string
}

// BackupKeySize is the size of the key in an age file's header that its content is
// encrypted under.
const BackupKeySize = 16

// RestoreRequest makes the first manager of the cluster that a backup is of out of a
// node that is in none: POST /skep/v1/restore. The answer is the node's ID.
type RestoreRequest struct {
	// Path is a backup on the node's machine.
	Path string
	// Key is the backup's file key, which whoever asks has from the file's header.
	Key []byte
	// ListenAddr, AdvertiseAddr and Availability are as in swarm.InitRequest.
	ListenAddr, AdvertiseAddr string
	Availability              swarm.NodeAvailability
}
