package seal

import (
	"crypto/cipher"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/hashicorp/raft"
)

// What is written while the ring rotates may still be under the key of before. So
// whatever is sealed anew here is read and written under the lock that writing
// takes, after the rotation: from then on there is nothing under an older key.

// resealBatch is how many log entries are written anew at a time: raft waits no
// longer than for that.
const resealBatch = 256

// Drop forgets all keys but the one that seals. What is under another doesn't open
// any more.
func (r *Ring) Drop() {
	keys := r.keys.Load()
	r.keys.Store(&ringKeys{current: keys.current, ciphers: map[[keyIDSize]byte]cipher.AEAD{keys.current: keys.ciphers[keys.current]}})
}

// sealed tells whether what begins with head is under the key that seals now.
func (r *Ring) sealed(head []byte) bool {
	current := r.keys.Load().current
	return len(head) > keyIDSize && string(head[1:1+keyIDSize]) == string(current[:])
}

// Reencrypt seals all entries that are under an older key anew.
func (l *Log) Reencrypt() error {
	first, err := l.FirstIndex()
	if err != nil {
		return fmt.Errorf("seal log anew: %w", err)
	}
	for next := first; next != 0; {
		if next, err = l.reseal(next); err != nil {
			return fmt.Errorf("seal log anew: %w", err)
		}
	}
	return nil
}

// reseal does one batch, and says where the next one begins; 0 when there is none.
func (l *Log) reseal(from uint64) (next uint64, err error) {
	l.writing.Lock()
	defer l.writing.Unlock()
	first, err := l.inner.FirstIndex()
	if err != nil {
		return 0, err
	}
	last, err := l.inner.LastIndex()
	if err != nil || last == 0 {
		return 0, err
	}
	var old []*raft.Log
	next = max(from, first) // The log may have been shortened since.
	for ; next <= last && len(old) < resealBatch; next++ {
		var entry raft.Log
		if err := l.inner.GetLog(next, &entry); errors.Is(err, raft.ErrLogNotFound) {
			continue
		} else if err != nil {
			return 0, err
		}
		if l.ring.sealed(entry.Data) {
			continue
		}
		if err := l.GetLog(next, &entry); err != nil {
			return 0, err
		}
		old = append(old, &entry)
	}
	if len(old) > 0 {
		if err := l.storeLocked(old); err != nil {
			return 0, err
		}
	}
	if next > last {
		return 0, nil
	}
	return next, nil
}

// Old lists the snapshots that are under an older key, and tells whether the newest
// one is.
func (s *Snapshots) Old() (ids []string, newest bool, err error) {
	metas, err := s.inner.List()
	if err != nil {
		return nil, false, fmt.Errorf("look under which keys snapshots are: %w", err)
	}
	for i, meta := range metas {
		current, err := s.current(meta.ID)
		if err != nil {
			return nil, false, fmt.Errorf("look under which key snapshot %s is: %w", meta.ID, err)
		}
		if !current {
			ids = append(ids, meta.ID)
			newest = newest || i == 0
		}
	}
	return ids, newest, nil
}

func (s *Snapshots) current(id string) (bool, error) {
	_, source, err := s.inner.Open(id)
	if err != nil {
		return false, err
	}
	defer source.Close()
	head := make([]byte, streamHeadSize)
	if _, err := io.ReadFull(source, head); err != nil {
		return false, err
	}
	return s.ring.sealed(head), nil
}

// Current tells whether the file is under the key that seals now, or isn't there.
func (f *File) Current() (bool, error) {
	file, err := os.Open(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("look under which key a file is: %w", err)
	}
	defer file.Close()
	head := make([]byte, headSize)
	if _, err := io.ReadFull(file, head); err != nil {
		return false, fmt.Errorf("look under which key %s is: %w", f.path, err)
	}
	return f.ring.sealed(head), nil
}
