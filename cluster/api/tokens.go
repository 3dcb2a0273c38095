package api

import (
	"context"
	"fmt"

	"skep/cluster"
	"skep/store"
)

var errNoRecord = fail(cluster.ErrUnavailable, "the cluster's record isn't there yet: try again")

func (s *Server) listTokens(_ context.Context, r *request) (response, error) {
	list := []cluster.TokenShown{}
	if record := r.manager.Store().View().Cluster(); record != nil {
		for _, t := range record.Tokens {
			list = append(list, t.Shown(r.manager.Store().Now()))
		}
	}
	return response{body: list}, nil
}

// createToken makes a limited join token, and tells it this once.
func (s *Server) createToken(ctx context.Context, r *request) (response, error) {
	var wanted cluster.TokenRequest
	if err := r.decodeStrict(&wanted); err != nil {
		return response{}, err
	}
	var shown cluster.TokenShown
	err := r.manager.Store().Update(ctx, func(tx *store.Tx) error {
		record := tx.Cluster()
		if record == nil {
			return errNoRecord
		}
		like, err := cluster.ParseJoinToken(record.WorkerToken)
		if err != nil {
			return fmt.Errorf("make join token: %w", err)
		}
		token := cluster.NewJoinToken(like.Digest, s.Random)
		made, err := cluster.NewLimitedToken(cluster.NewID(s.Random), token, wanted, cluster.Actor(ctx), tx.Now())
		if err != nil {
			return err
		}
		next, err := record.WithToken(made, tx.Now())
		if err != nil {
			return err
		}
		shown = made.Shown(tx.Now())
		shown.Token = token.String()
		return tx.Put(next)
	})
	if err != nil {
		return response{}, err
	}
	noteOf(ctx).name(cluster.AuditedObject{Kind: "token", ID: shown.ID})
	return response{body: shown}, nil
}

func (s *Server) removeToken(ctx context.Context, r *request) (response, error) {
	removed := ""
	err := r.manager.Store().Update(ctx, func(tx *store.Tx) error {
		record := tx.Cluster()
		if record == nil {
			return errNoRecord
		}
		next, id, err := record.WithoutToken(r.vars("id"))
		if err != nil {
			return err
		}
		removed = id
		return tx.Put(next)
	})
	if err == nil {
		noteOf(ctx).name(cluster.AuditedObject{Kind: "token", ID: removed})
	}
	return response{}, err
}
