package timeline

import (
	"cmp"
	"slices"
	"sync"
	"time"
)

// MaxRecords is how many records a manager keeps.
const MaxRecords = 4096

// A Ring's records by what they are about, so that a day of writes, or a thousand nodes that come and
// go, leave what raft did.
const (
	aboutRaft = iota
	aboutNodes
	aboutWrites
	subjects
)

// kept is how many records of each there are at most.
var kept = [subjects]int{aboutRaft: MaxRecords / 2, aboutNodes: MaxRecords / 4, aboutWrites: MaxRecords / 4}

func subject(kind Kind) int {
	switch kind {
	case NodeState:
		return aboutNodes
	case Writes:
		return aboutWrites
	}
	return aboutRaft
}

// Ring keeps a manager's newest records. A nil one keeps none.
type Ring struct {
	manager string

	mu   sync.Mutex // guards the fields below
	seq  uint64     // the next record's
	kept [subjects]part
}

// part is a ring of records of one subject: records[next] is the oldest once it is full.
type part struct {
	records []Record
	next    int
}

// NewRing makes the Ring of a manager that starts at the time given. Its records' numbers begin with that
// time in microseconds, so that those after a restart are others.
func NewRing(manager string, now time.Time) *Ring {
	return &Ring{manager: cut(manager, maxID), seq: uint64(max(now.UnixMicro(), 0))}
}

// Add takes in a record, which needs no Manager and no Seq. One of no Kind is none.
func (r *Ring) Add(record Record) {
	if r == nil || record.Kind == "" {
		return
	}
	record = record.bounded()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.addLocked(record)
}

func (r *Ring) addLocked(record Record) {
	record.Manager, record.Seq = r.manager, r.seq
	r.seq++
	about := subject(record.Kind)
	p := &r.kept[about]
	if len(p.records) < kept[about] {
		p.records = append(p.records, record)
		return
	}
	p.records[p.next] = record
	p.next = (p.next + 1) % len(p.records)
}

// newest is the last record added; nil when there is none.
func (p *part) newest() *Record {
	if len(p.records) == 0 {
		return nil
	}
	return &p.records[(p.next+len(p.records)-1)%len(p.records)]
}

// Wrote counts writes that were accepted in a term by a commit that took so long.
func (r *Ring) Wrote(now time.Time, term uint64, writes int, took time.Duration) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	last := r.kept[aboutWrites].newest()
	if last == nil || last.Term != term || now.Sub(last.Time) >= time.Second || now.Before(last.Time) {
		r.addLocked(Record{Time: now, Kind: Writes, Term: term, Count: writes, Took: took})
		return
	}
	last.Count += writes
	last.Took = max(last.Took, took)
}

// Since gives the records that aren't older, in the order in which they were added.
func (r *Ring) Since(since time.Time) []Record {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []Record
	for _, p := range r.kept {
		for _, record := range p.records {
			if !record.Time.Before(since) {
				all = append(all, record)
			}
		}
	}
	slices.SortFunc(all, func(a, b Record) int { return cmp.Compare(a.Seq, b.Seq) })
	return all
}
