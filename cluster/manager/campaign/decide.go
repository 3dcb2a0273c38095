package campaign

import (
	"time"

	"github.com/hashicorp/raft"

	"skep/cluster"
)

// decide tells whether a manager that misses its leader is to stand for election, and if
// not, when to ask again. Own is its account; others are those of the other voters but the
// leader, empty for one that doesn't answer; known is for how long it has missed the leader.
//
// It stands when most voters, the leader counted among them, miss it. One of them goes
// first, so that they don't split the votes: whose log is the longest, since that one gets
// all votes, and the first by ID of several. When nothing comes of that the others try,
// each at its turn.
func decide(own cluster.ManagerHealth, others []cluster.ManagerHealth, known, beat time.Duration) (stand bool, again time.Duration) {
	again = beat / 8
	place, agreed := tally(own, others, beat)
	if !agreed {
		return false, again
	}
	if turn := place.turn(own.Refused, beat); known < turn {
		return false, min(again, turn-known)
	}
	return true, 0
}

// place is where a manager is among those that miss the leader.
type place struct {
	// before is how many go first.
	before int
	// overtakes is set when one that would go first by its ID has a shorter log.
	overtakes bool
}

// tally tells whether most voters miss the leader, and which place this one has.
func tally(own cluster.ManagerHealth, others []cluster.ManagerHealth, beat time.Duration) (at place, agreed bool) {
	agree, voters := 1, len(others)+2
	for _, other := range others {
		if newer(own, other) {
			return place{}, false
		}
		if !misses(other, beat) {
			continue
		}
		agree++
		switch {
		case other.LastIndex > own.LastIndex || other.LastIndex == own.LastIndex && other.NodeID < own.NodeID:
			at.before++
		case other.NodeID < own.NodeID:
			at.overtakes = true
		}
	}
	return at, agree > voters/2
}

// newer tells whether a manager's account says that there has been an election meanwhile.
func newer(own, other cluster.ManagerHealth) bool { return other.Term > own.Term || other.Leader }

// misses tells whether a manager's account says that it misses the leader: nobody listens
// at the leader's port, or it heard nothing for a time in which there are two heartbeats.
func misses(account cluster.ManagerHealth, beat time.Duration) bool {
	return account.NodeID != "" && (account.Refused || account.LastContact >= beat*2/3)
}

// turn is how long a manager waits for those before it. A refusal is found by all at the
// same moment, when what the leader sent last may yet be read: then two may each have found
// themselves to have the longest log, so one that overtakes lets the other's request for its
// vote come first. Silence isn't found at the same moment, and whoever finds it may wait for
// answers.
func (p place) turn(refused bool, beat time.Duration) time.Duration {
	switch {
	case p.before > 0 && refused:
		return time.Duration(p.before) * stagger(beat)
	case p.before > 0:
		return beat/2 + time.Duration(p.before)*stagger(beat)
	case p.overtakes && refused:
		return stagger(beat) / 3
	}
	return 0
}

// stagger is how much later than the one before it each manager stands: an election takes less.
func stagger(beat time.Duration) time.Duration { return beat / 5 }

// voters are those who decide about the leader besides itself and self; votes tells
// whether self is one.
func voters(servers []raft.Server, self, leader string) (others []raft.Server, votes bool) {
	for _, server := range servers {
		switch {
		case server.Suffrage != raft.Voter:
		case string(server.ID) == self:
			votes = self != leader
		case string(server.ID) != leader:
			others = append(others, server)
		}
	}
	return others, votes
}
