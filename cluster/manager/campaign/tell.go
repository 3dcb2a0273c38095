package campaign

import (
	"time"

	"github.com/hashicorp/raft"

	"skep/cluster"
	"skep/cluster/timeline"
)

// told is what the timeline was told since the leader is missed. A leader may be missed for long, and the
// others asked again and again: only what is new is worth a record.
type told struct {
	// leader is who is missed; "" for nobody. Since is when it was heard last.
	leader string
	since  time.Time
	// refused is set when it was told that nobody listens at its port.
	refused bool
	// answers are by manager, before is how many go first.
	answers map[string]string
	before  int
}

func (c *Campaign) record(record timeline.Record) {
	record.Time = c.config.Now()
	c.config.Timeline.Add(record)
}

// tell tells the timeline that a leader is missed, or that it is heard again.
func (c *Campaign) tell(leader string, own cluster.ManagerHealth) {
	if leader != c.told.leader {
		c.tellMissed(leader, own)
	}
	if leader != "" && own.Refused && !c.told.refused {
		c.told.refused = true
		c.record(timeline.Record{Kind: timeline.Refused, Node: leader})
	}
}

// tellMissed tells the timeline that another leader is missed than at the last look, or none.
func (c *Campaign) tellMissed(leader string, own cluster.ManagerHealth) {
	now := c.config.Now()
	_, follows := c.config.Raft.LeaderWithID()
	switch {
	case leader != "" && own.Refused:
		c.told = told{leader: leader, since: now, answers: map[string]string{}}
	case leader != "":
		c.told = told{leader: leader, since: now.Add(-own.LastContact), answers: map[string]string{}}
		c.record(timeline.Record{Kind: timeline.Silent, Node: leader, Took: own.LastContact})
	default:
		if string(follows) == c.told.leader && c.config.Raft.State() == raft.Follower {
			c.record(timeline.Record{Kind: timeline.Heard, Node: c.told.leader, Took: now.Sub(c.told.since)})
		}
		c.told = told{}
	}
}

// tellAnswers tells the timeline what the others say of the leader, where that is new.
func (c *Campaign) tellAnswers(own cluster.ManagerHealth, others []raft.Server, accounts []cluster.ManagerHealth) {
	for i, other := range others {
		word := answer(own, accounts[i], c.config.HeartbeatTimeout)
		if id := string(other.ID); c.told.answers[id] != word {
			c.told.answers[id] = word
			c.record(timeline.Record{Kind: timeline.Asked, Node: id, Word: word})
		}
	}
}

// tellTurn tells the timeline how many stand before this manager, if most agree and that is new.
func (c *Campaign) tellTurn(own cluster.ManagerHealth, accounts []cluster.ManagerHealth) {
	place, agreed := tally(own, accounts, c.config.HeartbeatTimeout)
	if agreed && place.before > 0 && place.before != c.told.before {
		c.told.before = place.before
		c.record(timeline.Record{Kind: timeline.Waits, Count: place.before})
	}
}

// answer is a manager's account of the leader in a word.
func answer(own, other cluster.ManagerHealth, beat time.Duration) string {
	switch {
	case other.NodeID == "":
		return timeline.NoAnswer
	case newer(own, other):
		return timeline.NewTerm
	case misses(other, beat):
		return timeline.Misses
	}
	return timeline.Hears
}
