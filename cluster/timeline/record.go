package timeline

import (
	"time"
	"unicode/utf8"
)

// Kind is what happened.
type Kind string

// The kinds. "It" is the manager whose record it is.
const (
	// Started: its process started, in Term.
	Started Kind = "started"
	// Role: in raft it became what Word says: "follower", "candidate" or "leader". Term is the leader's;
	// Why is why a candidate stands.
	Role Kind = "role"
	// Follows: it learned that Node leads in Term.
	Follows Kind = "follows"
	// Leaderless: it knows of no leader any more; Node led before.
	Leaderless Kind = "leaderless"
	// Silent: it has heard nothing of its leader Node for Took.
	Silent Kind = "silent"
	// Refused: nobody listens at the port of its leader Node any more.
	Refused Kind = "refused"
	// Heard: it hears its leader Node again, which it had missed for Took.
	Heard Kind = "heard"
	// Asked: it asked Node how its leader is; Word is the answer.
	Asked Kind = "asked"
	// Waits: enough managers miss the leader, but Count others stand for election before it.
	Waits Kind = "waits"
	// AsksVote: it asks Node for its vote in Term.
	AsksVote Kind = "asks-vote"
	// Vote: Node answered that with Word, after Took.
	Vote Kind = "vote"
	// Voted: it answered Node's request for its vote in Term with Word.
	Voted Kind = "voted"
	// Lost: it leads, and Node hasn't answered it for Took.
	Lost Kind = "lost"
	// Found: it leads, and Node answers again, after Took.
	Found Kind = "found"
	// HandOver: it hands leadership to Node, in Term.
	HandOver Kind = "hand-over"
	// HandedOver: that ended after Took; Why says why it failed, and is empty when it didn't.
	HandedOver Kind = "handed-over"
	// Ready: it leads in Term and takes writes, Took after it was elected: it has applied all that was
	// committed before.
	Ready Kind = "ready"
	// Writes: it leads in Term and accepted Count writes in the second that begins with the record, the
	// slowest commit of which took Took. The record grows until the second is over.
	Writes Kind = "writes"
	// NodeState: the node Node is in the state Word; Why says why.
	NodeState Kind = "node"
)

// Words of records, by kind.
const (
	// of Role
	Follower  = "follower"
	Candidate = "candidate"
	Leader    = "leader"
	// of Asked
	Misses   = "misses it too"
	Hears    = "hears it"
	NewTerm  = "has a newer term"
	NoAnswer = "no answer" // also of Vote
	// Why of a candidate's Role: its leader is silent, its leader's port refuses, the leader handed over to it,
	// or none of it, and raft's own timeout ended
	BySilence    = "silence"
	ByConnection = "connection"
	ByHandOver   = "handover"
	ByTimeout    = "timeout"
	// of Vote and Voted
	Granted = "granted"
	Denied  = "denied"
	// of NodeState, besides the states of nodes
	Removed = "removed"
)

// Record is one thing that happened.
type Record struct {
	// Manager is whose it is, and Seq its number there: they name the record, also after a restart. One
	// that is asked for again may have grown, see Writes.
	Manager string `cbor:"1,keyasint,omitempty"`
	Seq     uint64 `cbor:"2,keyasint"`
	// Time is by that manager's clock in its own answer, and in a Timeline by that of the one that made it.
	Time time.Time `cbor:"3,keyasint"`
	Kind Kind      `cbor:"4,keyasint"`
	Term uint64    `cbor:"5,keyasint,omitempty" json:",omitempty"`
	// Node is the other one, by its ID.
	Node  string        `cbor:"6,keyasint,omitempty" json:",omitempty"`
	Count int           `cbor:"7,keyasint,omitempty" json:",omitempty"`
	Took  time.Duration `cbor:"8,keyasint,omitempty" json:",omitempty"`
	Word  string        `cbor:"9,keyasint,omitempty" json:",omitempty"`
	Why   string        `cbor:"10,keyasint,omitempty" json:",omitempty"`
}

// Limits of texts in a record, in bytes: a manager's whole answer then stays below MaxAnswer.
const (
	maxID   = 32
	maxWord = 24
	maxWhy  = 72
)

// bounded is the record with texts that aren't too long.
func (r Record) bounded() Record {
	r.Node, r.Word, r.Why = cut(r.Node, maxID), cut(r.Word, maxWord), cut(r.Why, maxWhy)
	return r
}

// cut gives at most so many bytes of a text, and no part of a character.
func cut(text string, most int) string {
	const more = "…"
	if len(text) <= most && utf8.ValidString(text) {
		return text
	}
	end := 0
	for at, char := range text {
		if size := utf8.RuneLen(char); char == utf8.RuneError || at+size > most-len(more) {
			break
		} else {
			end = at + size
		}
	}
	return text[:end] + more
}
