package campaign

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"skep/cluster"
)

// A leader that is cut off, or stands still, breaks no connection: only its silence
// tells. Raft looks for silence at random moments, so that a follower finds it one to
// three Beats after it began, and votes only when it has found it itself. Here a
// follower looks when the silence has lasted a HeartbeatTimeout, and asks the others. When most
// hear nothing either it stands for election, as in campaign.go. So a follower that
// alone is cut off from a leader deposes nobody.

// OnSilence stands for election when the leader has fallen silent.
func (c *Campaign) OnSilence(ctx context.Context) error {
	for ctx.Err() == nil {
		leader, silence := c.leaderSilence()
		if wait := c.HeartbeatTimeout - silence; wait > 0 {
			c.PutOff()
			select {
			case <-ctx.Done():
			case <-c.quiet.C:
			}
			if _, silence := c.leaderSilence(); silence > c.HeartbeatTimeout*5/4 {
				// This process stood still; what the leader sent meanwhile is yet to be read.
				pause(ctx, c.HeartbeatTimeout/4)
			}
			continue
		}
		servers := c.Servers()
		place := electionRank(servers, c.NodeID, leader)
		own := cluster.ManagerHealth{NodeID: c.NodeID, Term: c.Raft.CurrentTerm(), LastIndex: c.Raft.LastIndex(), LastContact: silence}
		stand := place >= 0 && shouldCampaign(own, c.askOthers(ctx, servers, leader), c.HeartbeatTimeout, time.Duration(place)*c.electionStagger())
		if now, silence := c.leaderSilence(); stand && now == leader && silence >= c.HeartbeatTimeout {
			c.campaign(leader, own.Term, "the leader is silent")
			pause(ctx, c.HeartbeatTimeout)
		}
		pause(ctx, c.HeartbeatTimeout/8)
	}
	return ctx.Err()
}

// PutOff sets the timer to when the leader will have been silent for a HeartbeatTimeout. Each heartbeat
// does so, which costs less than to wake up and look.
func (c *Campaign) PutOff() {
	_, silence := c.leaderSilence()
	c.quiet.Reset(max(0, c.HeartbeatTimeout-silence))
}

// leaderSilence is for how long this follower has heard nothing of its leader; none when it
// has no leader, since nobody is missed then.
func (c *Campaign) leaderSilence() (leader string, silence time.Duration) {
	_, id := c.Raft.LeaderWithID()
	if id == "" || c.Raft.State() != raft.Follower {
		return "", 0
	}
	return string(id), time.Since(c.Raft.LastContact())
}

// askOthers has the account of each voter but the leader and this one; of one that
// doesn't answer in time it is empty.
func (c *Campaign) askOthers(ctx context.Context, servers []raft.Server, leader string) []cluster.ManagerHealth {
	ctx, cancel := context.WithTimeout(ctx, c.HeartbeatTimeout/3)
	defer cancel()
	var others []raft.Server
	for _, server := range servers {
		if server.Suffrage == raft.Voter && string(server.ID) != c.NodeID && string(server.ID) != leader {
			others = append(others, server)
		}
	}
	accounts := make([]cluster.ManagerHealth, len(others))
	var asked sync.WaitGroup
	for i, server := range others {
		asked.Go(func() {
			if health, err := c.Ask(ctx, string(server.Address), ""); err == nil {
				accounts[i] = health
			}
		})
	}
	asked.Wait()
	return accounts
}

// shouldCampaign tells whether a follower should stand: most voters, the leader counted among
// them, have heard nothing of it for two thirds of a HeartbeatTimeout, in which there are two heartbeats. One of them
// goes first, so that they don't split the votes: whose log is the longest, since that
// one gets all votes, and the first by ID of several. When nothing comes of that the
// others try, each at its turn.
func shouldCampaign(own cluster.ManagerHealth, others []cluster.ManagerHealth, beat, turn time.Duration) bool {
	agree, voters, first := 1, len(others)+2, true
	for _, other := range others {
		if other.Term > own.Term || other.Leader {
			return false // There has been an election meanwhile.
		}
		if other.NodeID == "" || other.LastContact < beat*2/3 {
			continue
		}
		agree++
		if other.LastIndex > own.LastIndex || other.LastIndex == own.LastIndex && other.NodeID < own.NodeID {
			first = false
		}
	}
	return agree > voters/2 && (first || own.LastContact >= beat+beat/2+turn)
}
