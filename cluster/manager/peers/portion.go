package peers

import "github.com/hashicorp/raft"

const (
	// entriesAtOnce is how many entries raft reads for a follower that lacks them; all of
	// them are in memory until the follower has them, once for each such follower.
	entriesAtOnce = 32
	// portion is how many bytes of them are sent in one message, unless a single entry is
	// larger: the follower must have written them before the message's time is over.
	portion = 1 << 20
)

// sendFunc sends one request to one manager.
type sendFunc func(args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error

// inPortions sends a request as several whose entries aren't too large, one after the
// other: raft itself counts entries only. When one of them fails after others were
// answered, the request is made to be those that were: raft counts what args has as
// stored, and goes on behind it. Wanted tells whether it is still worth while.
//
// A follower commits up to the end of its log when the leader has committed so much. Here
// it is told no more than what this request vouches for, as in the paper: entries after
// that may be of an earlier leader.
func inPortions(args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse, send sendFunc, wanted func() bool) error {
	all, sent := args.Entries, 0
	for {
		part := *args
		if sent > 0 {
			part.PrevLogEntry, part.PrevLogTerm = all[sent-1].Index, all[sent-1].Term
		}
		part.Entries = firstPortion(all[sent:])
		end := part.PrevLogEntry
		if n := len(part.Entries); n > 0 {
			end = part.Entries[n-1].Index
		}
		part.LeaderCommitIndex = min(args.LeaderCommitIndex, end)
		var answer raft.AppendEntriesResponse
		if err := send(&part, &answer); err != nil {
			if sent == 0 {
				return err
			}
			break
		}
		*resp = answer
		if sent += len(part.Entries); !answer.Success || sent == len(all) || !wanted() {
			break
		}
	}
	args.Entries = all[:sent]
	return nil
}

// firstPortion are as many of the entries as fit into one message, but at least one.
func firstPortion(entries []*raft.Log) []*raft.Log {
	size := 0
	for i, entry := range entries {
		if size += len(entry.Data) + len(entry.Extensions); i > 0 && size > portion {
			return entries[:i]
		}
	}
	return entries
}
