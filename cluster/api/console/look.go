package console

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/docker/docker/api/types/events"

	"skep/cluster"
	"skep/store"
)

// look is all that a page is made from: what is known at one moment.
type look struct {
	// waiting ends when the page has waited for others for long enough, and done ends it.
	waiting context.Context
	done    context.CancelFunc
	view    store.View
	now     time.Time
	// self is this manager, and leader the ID of the one that leads as far as it knows.
	self   cluster.ManagerHealth
	leader string
	// status is the cluster's health, as of asked.
	status cluster.Status
	asked  time.Time
	events []*events.Message
	// write tells whether the page may offer to change something.
	write bool
	query url.Values
	path  func(name string) string
}

// look gathers what there is now. Who has it calls done in the end.
func (c *Console) look(r *http.Request) (*look, error) {
	manager := c.Manager()
	if manager == nil {
		return nil, c.NotManager()
	}
	waiting, done := context.WithTimeout(r.Context(), pageWait)
	status, asked := c.health(waiting, manager)
	return &look{
		waiting: waiting, done: done, view: manager.Store().View(), now: c.Now(), self: manager.Health(), leader: manager.LeaderID(), status: status, asked: asked,
		events: c.Events(), write: r.Header.Get(GrantHeader) == GrantWrite, query: r.URL.Query(), path: r.PathValue,
	}, nil
}

// page is what a page shows, within the frame that all have.
type page struct {
	Title string
	// Nav is the entry of the navigation that the page belongs to.
	Nav string
	// Filter is the text that lists are filtered by, and CanFilter whether there is a box for it.
	Filter    string
	CanFilter bool
	// Keep are the other parts of the page's query, which the filter leaves.
	Keep     []factShown
	Sections []section
}

// section is a part of a page that can be shown anew by itself.
type section struct {
	ID string
	// Title is its heading; empty for none.
	Title string
	// Topics are what its content changes with: see topics.
	Topics string
	// Wide sections have a row of the page for themselves.
	Wide bool
	// Template makes it from Data.
	Template string
	Data     any
}

// frame is what all pages show.
type frame struct {
	Cluster string
	Health  verdict
	Source  string
	Alone   bool
	Write   bool
}

type framed struct {
	frame
	page
}

// verdict is the health of the cluster in a sentence.
type verdict struct {
	Kind     string // of mark
	Sentence string
	More     int // problems beyond the one of the sentence
}

func (l *look) frame() frame {
	f := frame{Cluster: "skep", Health: judge(l.status, l.leader), Source: l.source(), Alone: l.leader == "", Write: l.write}
	if c := l.view.Cluster(); c != nil {
		f.Cluster = "cluster " + short(c.ID)
		if c.Spec.Name != "" && c.Spec.Name != "default" {
			f.Cluster = c.Spec.Name
		}
	}
	return f
}

// judge says how the cluster is.
func judge(status cluster.Status, leader string) verdict {
	switch n := len(status.Problems); {
	case leader == "" && (status.ClusterID == "" || status.LeaderID != ""): // What was said before says too little.
		return verdict{Kind: "bad", Sentence: "There is no leader, and nothing can be changed."}
	case status.ClusterID == "":
		return verdict{Kind: "busy", Sentence: "Nobody has told yet how the cluster is."}
	case n == 0:
		return verdict{Kind: "ok", Sentence: "All is well."}
	default:
		return verdict{Kind: "bad", Sentence: sentence(status.Problems[0]), More: n - 1}
	}
}

// source says whose copy of the database this is, and how old what it shows is.
func (l *look) source() string {
	name := l.nodeName(l.self.NodeID)
	text := "Seen by " + name
	switch {
	case l.self.Leader:
		text += ", which leads"
	case l.leader == "" && l.self.LastContact > 0:
		text += ", which has heard of no leader for " + span(l.self.LastContact)
	case l.leader == "":
		text += ", which knows of no leader"
	default:
		text += ", which heard the leader " + span(l.self.LastContact) + " ago"
	}
	text += "; entry " + count(l.self.AppliedIndex)
	if behind := l.self.CommitIndex - min(l.self.AppliedIndex, l.self.CommitIndex); behind > 0 {
		text += ", " + count(behind) + " behind"
	}
	if age := l.now.Sub(l.asked); !l.asked.IsZero() && age > 2*healthAge {
		text += "; health as of " + span(age) + " ago"
	}
	return text
}

// nodeName is how people call a node.
func (l *look) nodeName(id string) string {
	if node := l.view.Node(id); node != nil {
		return nameOf(node)
	}
	for _, m := range l.status.Managers {
		if m.NodeID == id && m.Hostname != "" {
			return m.Hostname
		}
	}
	return short(id)
}

func nameOf(node *cluster.Node) string {
	switch {
	case node.Spec.Name != "":
		return node.Spec.Name
	case node.Description.Hostname != "":
		return node.Description.Hostname
	}
	return short(node.ID)
}
