// Package liveness decides which nodes are ready, unknown, disconnected or down, and
// which of two machines with one identity is the copy.
//
// The leader's dispatcher runs it: Tracker takes in what each manager relays of its
// sessions and of its own gossip, and remembers since when each signal is what it is;
// Observe joins that with the nodes' records to an Input; Decide is a pure function
// from an Input to the states that change and the time to look again. The dispatcher
// writes the changes. Nothing here reads a clock, starts a goroutine or keeps a lock:
// a Tracker belongs to the goroutine that calls it, and each call is told the time.
//
// # Rules
//
// A session is a node's connection with any manager; gossip is memberlist's view. The
// first rule that fits counts:
//
//	session, engine      gossip              for             the node is
//	yes, answers         any                                 ready
//	yes, doesn't answer  any                                 disconnected
//	yes, doesn't answer  any                 30 s            down
//	none, was down       any                                 still down
//	none, agent stopped  any                                 unknown
//	none, agent stopped  any                 10 s            down
//	none, machine halts  any                                 down
//	none, never had one  any                 10 s            down
//	none                 dead                0.3 s           down
//	none                 suspect             SuspectAfter    down
//	none                 alive, or no use    2 s             disconnected
//	none                 alive, or no use    10 s            down
//
// A ready node gets tasks; a disconnected or unknown one keeps those it has and gets no
// new ones; a down one loses them. Gossip is of no use where there is none, and for a node
// that it had given up 10 s before the session ended: its view says nothing about this loss.
//
// Three things hold these rules back:
//
//   - Settling: a new leader doesn't miss a session before 0.4 s, nor before each manager
//     that gossip sees has relayed once, for which it waits 2 s at most.
//   - The mass-failure guard: when more than a third of the nodes and at least three of them
//     vanish within 15 s, the fault may be this leader's network. Nodes are disconnected
//     instead of down until their session has been gone for 15 s.
//   - Corroboration lifts the guard for a node that a majority of the managers, and at least
//     one besides the leader, miss by their own gossip. It counts for nothing in the first
//     15 s after all managers had been off: then none of them has ever seen the node.
//
// The sessions of a manager count for a second after it was last heard of, or for what
// the caller says that contact by other ways is worth.
//
// # Why two signals
//
// Gossip notices a dead machine within a second, but a machine whose gossip port is blocked
// looks dead as well; a session says for certain that the agent is there, but an idle TCP
// connection to a machine without power looks alive until a heartbeat is missed. So a session
// overrules gossip, and gossip makes the end of a session mean something at once: without it,
// each restart of a manager would be a reason to replace tasks, or each loss take 10 s.
//
// An agent that says that it stops is not lost, nor one without a session whose node leaves
// gossip: its containers run on and it is about to be back, after an upgrade for instance. When
// its machine stops too, which systemd tells it, nobody waits. A node without an engine may be
// restarting it, with its containers still running.
//
// The guard prevents the worst that a leader can do: take its own broken network for the death of
// most nodes, and move all tasks to the few that it sees. Other managers' gossip is evidence of
// another kind. (One could count their sessions, too, but a node whose session they have isn't
// missing in the first place.)
//
// # Guarantees
//
//   - A node with a session on a manager that is heard of is never down, unless its engine
//     has been away for 30 s.
//   - Written and decided again at the same time, nothing more changes (property).
//   - Messages are constant for as long as a state lasts, so it is written once.
//   - Observe and Decide are linear in the number of nodes.
package liveness
