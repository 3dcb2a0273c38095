package dispatch

import (
	"fmt"
	"strings"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

// report puts the agent's reports into the outbox. Which tasks are the node's is
// decided by the leader, since this replica may be behind.
func (s *session) report(reports []cluster.Report) error {
	news := make([]cluster.NodeReport, 0, len(reports))
	for _, r := range reports {
		r, err := checkReport(r)
		if err != nil {
			s.d.config.Log.Warn("report refused", "node", s.nodeID, "err", err)
			continue
		}
		news = append(news, cluster.NodeReport{NodeID: s.nodeID, Report: r})
	}
	if !s.d.outbox.addReports(news) {
		return errTooMuch
	}
	return nil
}

const (
	maxIDLength    = 64
	maxTextLength  = 4 << 10
	maxDescription = 256 << 10
)

// checkReport refuses what isn't an agent's to say, and cuts texts that are too long.
func checkReport(r cluster.Report) (cluster.Report, error) {
	if r.TaskID == "" || len(r.TaskID) > maxIDLength || len(r.Status.ContainerID) > 2*maxIDLength {
		return r, fmt.Errorf("take report: IDs of %d and %d characters: %w", len(r.TaskID), len(r.Status.ContainerID), cluster.ErrInvalid)
	}
	if !agents(r.Status.State) {
		return r, fmt.Errorf("take report of task %s: state %s isn't the agent's to report: %w", r.TaskID, r.Status.State, cluster.ErrInvalid)
	}
	r.Status.Message = shorten(r.Status.Message)
	r.Status.Err = shorten(r.Status.Err)
	return r, nil
}

// checkDescription gives the size of a description, or an error when it is too large.
func checkDescription(description swarm.NodeDescription) (int, error) {
	data, err := cluster.Encode(description)
	if err != nil {
		return 0, err
	}
	if len(data) > maxDescription {
		return 0, fmt.Errorf("the node's description has %d bytes, more than %d: %w", len(data), maxDescription, cluster.ErrInvalid)
	}
	return len(data), nil
}

// shorten cuts a text that is too long to be kept in the database.
func shorten(text string) string {
	if len(text) <= maxTextLength {
		return text
	}
	return strings.ToValidUTF8(text[:maxTextLength], "")
}
