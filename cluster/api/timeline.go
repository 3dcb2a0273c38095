package api

import (
	"cmp"
	"context"

	"skep/cluster/timeline"
)

// showTimeline is what raft and the managers' decisions did since then, for `skep cluster timeline`. Any manager
// answers, whether there is a leader or not.
func (s *Server) showTimeline(ctx context.Context, r *request) (response, error) {
	since, err := readTime(r, "since", s.Now())
	if err != nil {
		return response{}, err
	}
	manager := s.Node.Manager()
	if manager == nil {
		return response{}, cmp.Or(s.Node.Starting(), s.notManager())
	}
	t := manager.Timeline(ctx, since)
	if t.Records == nil {
		t.Records = []timeline.Record{}
	}
	return response{body: t}, nil
}
