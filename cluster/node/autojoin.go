package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

// The order to make a new cluster stays on the command line of the first machine. When
// that machine's disk is lost, the order must not make a second cluster beside the one
// that goes on: a node looks for a token, and for managers at the others, before it obeys.

const (
	// askOthersLimit is how long another machine may take to answer.
	askOthersLimit = 2 * time.Second
	// quietLooks times in a row nobody may be found, quietEvery: the machines may all be
	// starting, after a power cut.
	quietLooks = 10
	quietEvery = time.Second
)

// autoJoin does what the command line asks of a node that is no member.
func (n *Node) autoJoin(ctx context.Context) {
	said := ""
	for wait := 200 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		err := n.enterOnce(ctx)
		if err == nil || ctx.Err() != nil {
			return
		}
		n.mu.Lock()
		n.entry = err
		n.mu.Unlock()
		if text := err.Error(); text != said {
			said = text
			level := slog.LevelWarn
			if errors.Is(err, cluster.ErrPrecondition) {
				level = slog.LevelError // Somebody must act.
			}
			n.log.Log(ctx, level, "enter the cluster; trying again", "err", err)
		}
		if !cluster.Sleep(ctx, wait) {
			return
		}
	}
}

func (n *Node) enterOnce(ctx context.Context) error {
	if n.current() != nil {
		return nil
	}
	token, err := n.token()
	if err != nil {
		return err
	}
	if !n.cfg.Init || token != "" {
		return n.enterByToken(ctx, token)
	}
	if len(n.cfg.Join) > 0 {
		if err := n.askOthers(ctx); err != nil {
			return fmt.Errorf("make a new cluster: %w", err)
		}
	} else {
		n.log.Warn("make a new cluster: --join names no other machines to ask, so a lost disk of this one would make another cluster")
	}
	_, err = n.Init(ctx, swarm.InitRequest{
		ListenAddr: n.cfg.ListenAddr, AdvertiseAddr: n.cfg.AdvertiseAddr, Availability: swarm.NodeAvailability(n.cfg.Availability),
		DataPathAddr: n.cfg.DataPathAddr, DefaultAddrPool: n.cfg.DefaultAddrPool, SubnetSize: n.cfg.SubnetSize, DataPathPort: n.cfg.DataPathPort,
	})
	return err
}

// token reads the token file; "" while there is none and the node is to make a cluster.
func (n *Node) token() (string, error) {
	if n.cfg.TokenFile == "" {
		return "", nil
	}
	token, err := os.ReadFile(n.cfg.TokenFile)
	if n.cfg.Init && errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read join token: %w", err)
	}
	return strings.TrimSpace(string(token)), nil
}

// enterByToken joins the cluster of the token.
func (n *Node) enterByToken(ctx context.Context, token string) error {
	if len(n.cfg.Join) == 0 {
		return cluster.Errorf(cluster.ErrPrecondition, "make a new cluster: there is one already, whose token is in %s: name its managers with --join, or remove the file if it is gone for good", n.cfg.TokenFile)
	}
	return n.Join(ctx, swarm.JoinRequest{
		ListenAddr: n.cfg.ListenAddr, AdvertiseAddr: n.cfg.AdvertiseAddr, Availability: swarm.NodeAvailability(n.cfg.Availability),
		RemoteAddrs: n.cfg.Join, JoinToken: token, DataPathAddr: n.cfg.DataPathAddr,
	})
}

// askOthers looks for managers at the machines that the command line names. It returns
// nil only when each of them says that there is none, for some time.
func (n *Node) askOthers(ctx context.Context) error {
	for look := range quietLooks {
		if look > 0 && !cluster.Sleep(ctx, quietEvery) {
			return ctx.Err()
		}
		answers := make([]error, len(n.cfg.Join))
		var asked sync.WaitGroup
		for i, named := range n.cfg.Join {
			asked.Go(func() { answers[i] = n.askOther(ctx, named) })
		}
		asked.Wait()
		if err := errors.Join(answers...); err != nil {
			return err
		}
	}
	return nil
}

// askOther returns nil when nobody listens at a machine that is there.
func (n *Node) askOther(ctx context.Context, named string) error {
	addr, err := splitRemote(named)
	if err != nil {
		return err
	}
	asking, cancel := context.WithTimeout(ctx, askOthersLimit)
	defer cancel()
	conn, err := n.cfg.Network.Dial(asking, addr)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return nil
	case err != nil:
		return cluster.Errorf(cluster.ErrUnavailable, "%s doesn't answer, so it may be in a cluster: start it, or leave it out of --join if it is gone for good (%v)", addr, err)
	}
	conn.Close()
	return cluster.Errorf(cluster.ErrPrecondition, "a manager answers at %s, so there is a cluster already: to join it, put its token (\"skep swarm join-token -q manager\") into the file of --token-file", addr)
}
