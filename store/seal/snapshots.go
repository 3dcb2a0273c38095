package seal

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/hashicorp/raft"
)

// Snapshots is a raft snapshot store whose snapshots lie sealed in another. What
// raft keeps about a snapshot (index, term, addresses of managers) stays readable
// but is authenticated with the content.
type Snapshots struct {
	inner     raft.SnapshotStore
	ring      *Ring
	clusterID string
}

var _ raft.SnapshotStore = (*Snapshots)(nil)

// NewSnapshots wraps inner.
func NewSnapshots(inner raft.SnapshotStore, ring *Ring, clusterID string) *Snapshots {
	return &Snapshots{inner: inner, ring: ring, clusterID: clusterID}
}

// Create begins a snapshot.
func (s *Snapshots) Create(version raft.SnapshotVersion, index, term uint64, configuration raft.Configuration,
	configurationIndex uint64, trans raft.Transport) (raft.SnapshotSink, error) {
	sink, err := s.inner.Create(version, index, term, configuration, configurationIndex, trans)
	if err != nil {
		return nil, err
	}
	place := s.place(&raft.SnapshotMeta{
		Version: version, Index: index, Term: term,
		Configuration: configuration, ConfigurationIndex: configurationIndex,
	})
	return &snapshotSink{SnapshotSink: sink, writer: newStreamWriter(sink, s.ring, place)}, nil
}

// List lists the snapshots, the newest first.
func (s *Snapshots) List() ([]*raft.SnapshotMeta, error) {
	metas, err := s.inner.List()
	if err != nil {
		return nil, err
	}
	for i, meta := range metas {
		metas[i] = withPlainSize(meta)
	}
	return metas, nil
}

// Open opens a snapshot. Its reader fails with ErrBad as soon as it meets
// something that isn't as it was written, the missing end included.
func (s *Snapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	meta, source, err := s.inner.Open(id)
	if err != nil {
		return nil, nil, fmt.Errorf("open snapshot %s: %w", id, err)
	}
	return withPlainSize(meta), &snapshotReader{
		Reader: newStreamReader(bufio.NewReaderSize(source, chunkSize), s.ring, s.place(meta)),
		Closer: source,
	}, nil
}

// place binds a snapshot to all that raft believes about it: the configuration
// says who may vote, so it must not be exchanged either.
func (s *Snapshots) place(meta *raft.SnapshotMeta) Location {
	about := sha256.New()
	number := func(n uint64) { about.Write(binary.BigEndian.AppendUint64(nil, n)) }
	text := func(t string) { number(uint64(len(t))); io.WriteString(about, t) }
	number(uint64(meta.Version))
	number(meta.ConfigurationIndex)
	for _, server := range meta.Configuration.Servers {
		number(uint64(server.Suffrage))
		text(string(server.ID))
		text(string(server.Address))
	}
	return Location{
		ClusterID: s.clusterID, Kind: fmt.Sprintf("snapshot %x", about.Sum(nil)[:8]),
		Index: meta.Index, Term: meta.Term,
	}
}

// withPlainSize copies meta with the size of what is in the snapshot, which raft
// checks when it sends the snapshot to another manager.
func withPlainSize(meta *raft.SnapshotMeta) *raft.SnapshotMeta {
	plain := *meta
	plain.Size = plainSize(meta.Size)
	return &plain
}

type snapshotSink struct {
	raft.SnapshotSink
	writer *streamWriter
	closed bool
}

func (s *snapshotSink) Write(p []byte) (int, error) { return s.writer.Write(p) }

// Close writes the last chunk. A snapshot whose last chunk can't be written is
// thrown away. The FSM closes the sink, and raft does once more.
func (s *snapshotSink) Close() error {
	if s.closed {
		return nil
	}
	s.closed = true
	if err := s.writer.Close(); err != nil {
		s.SnapshotSink.Cancel()
		return err
	}
	return s.SnapshotSink.Close()
}

type snapshotReader struct {
	io.Reader
	io.Closer
}
