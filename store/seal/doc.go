// Package seal encrypts and authenticates what a node keeps on its disk: the
// raft log, the raft snapshots and small files.
//
// It is run by whoever holds the disk (store on managers, agent on every node);
// it starts no goroutine. Every record is sealed with XChaCha20-Poly1305 under a
// data key, with the place it belongs to (cluster, kind, index, term) as
// associated data.
//
// Guarantees: without the key nothing of a record but its length can be read; a
// record that was changed, cut short, or moved to another place doesn't open,
// and the error names the place. What it cannot see is a whole disk set back to
// an earlier day, since every record on it is then as it should be.
package seal
