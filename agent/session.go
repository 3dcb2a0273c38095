package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"github.com/fxamacker/cbor/v2"

	"skep/cluster"
)

const (
	// reconnectFirst to reconnectLast are the pauses between attempts to find a
	// manager, doubling. After the loss of a session that lasted, the first attempt
	// is made at once.
	reconnectFirst = 50 * time.Millisecond
	reconnectLast  = 2 * time.Second
	// behindLimit is how long a manager may stay behind what the agent has seen
	// before the agent looks for another one.
	behindLimit = 2 * time.Second
	// sessionPatience is how long an agent may be without a session before it is said.
	sessionPatience = 5 * time.Second
	// farewell is how long an agent that stops waits for its last message to go out.
	farewell = time.Second
	// silentPeriods is how many heartbeat periods of silence end a session.
	silentPeriods = 3
)

var (
	errSilent = errors.New("manager is silent")
	errGap    = errors.New("assignments are out of sequence")
	errBehind = errors.New("manager is behind what this node has seen")
	errClosed = errors.New("manager closed the session")
)

// connect keeps a session with some manager until ctx ends.
func (a *Agent) connect(ctx context.Context) {
	delay := time.Duration(0)
	failing := cluster.Complaint{Log: a.log, Patience: sessionPatience, Now: a.cfg.Now}
	lost := true
	for ctx.Err() == nil {
		began := a.cfg.Now()
		err := a.session(ctx)
		if ctx.Err() != nil {
			return
		}
		if a.cfg.Now().Sub(began) >= reconnectLast {
			delay = 0
			failing.Forget() // The session said itself that it was opened.
			lost = true
		}
		if lost {
			a.log.Info("no session with a manager", "err", err)
			lost = false
		}
		failing.About(err, "still no session with a manager; trying again", "")
		cluster.Sleep(ctx, a.jitter(delay))
		delay = min(max(2*delay, reconnectFirst), reconnectLast)
	}
}

// session is one connection with a manager. Its reader is a goroutine of its own,
// its writer the caller's.
type session struct {
	agent  *Agent
	conn   net.Conn
	outbox *outbox
	// welcome is closed when the manager has accepted; period is set by then.
	welcome chan struct{}
	period  time.Duration
	// hello, helloKeys and helloUses are what Hello had; they belong to the agent's holder.
	hello     swarm.NodeDescription
	helloKeys cluster.WireKeys
	helloUses []cluster.AddressUse
	// end ends the session, for a reason.
	end context.CancelCauseFunc
	// silence ends the session when the manager says nothing for too long.
	silence *silence

	// The fields below belong to the reader. to is the index of the last assignments
	// and 0 before the first; behind is a complete set that must wait.
	to     uint64
	behind *cluster.Assignments
	// networksBehind is set while complete accounts of networks must wait, likewise.
	networksBehind bool
	// moreOf is what came of an account that goes on with the next update.
	moreOf      *cluster.NetworkUpdate
	behindTimer *time.Timer

	logsMu sync.Mutex // guards logs, and what is on its way of each
	logs   map[uint64]*reading
	reads  sync.WaitGroup
}

// session runs one session to its end.
func (a *Agent) session(ctx context.Context) error {
	dialing, cancelDial := context.WithTimeout(ctx, a.cfg.ConnectTimeout)
	defer cancelDial()
	conn, err := a.cfg.Connect(dialing)
	if err != nil {
		return fmt.Errorf("connect to a manager: %w", err)
	}
	defer conn.Close()

	// The session outlives ctx by a farewell.
	inner, end := context.WithCancelCause(context.WithoutCancel(ctx))
	defer end(errClosed)
	context.AfterFunc(inner, func() { conn.Close() })

	s := &session{
		agent: a, conn: conn, outbox: newOutbox(),
		welcome: make(chan struct{}), end: end,
		silence: newSilence(a.cfg.ConnectTimeout, a.cfg.Missed, func() { end(errSilent) }),
		logs:    make(map[uint64]*reading),
	}
	defer s.silence.stop()

	var reader sync.WaitGroup
	reader.Go(func() { end(s.read(inner)) })
	err = s.write(ctx, inner)
	end(err)
	conn.Close()
	reader.Wait()
	s.reads.Wait()
	a.call(func(held *taskSet) {
		if held.outbox == s.outbox {
			held.outbox = nil
		}
	})
	return context.Cause(inner)
}

// write sends: Hello, then what the outbox gets, and heartbeats in between. ctx
// asks for a farewell, inner is the life of the session.
func (s *session) write(ctx, inner context.Context) error {
	hello := cluster.Hello{Format: cluster.WireFormat, Addr: s.agent.cfg.Addr(), DataAddr: s.agent.cfg.DataAddr(), Build: s.agent.cfg.Build, Run: s.agent.cfg.Run}
	first := cluster.FromAgent{Hello: &hello, Warning: s.agent.warning()}
	s.agent.call(func(held *taskSet) {
		s.hello, hello.Description, first.EngineAway = held.description, held.description, held.engineAway()
		hello.Engine, hello.WireKeys, s.helloKeys = held.engine, held.networks.keys, held.networks.keys
		hello.Uses, s.helloUses = held.networks.uses, held.networks.uses
	})
	if err := s.send(inner, &first); err != nil {
		return err
	}
	select {
	case <-s.welcome:
	case <-inner.Done():
		return context.Cause(inner)
	case <-ctx.Done():
		return ctx.Err()
	}
	quiet := s.period * 9 / 10
	heartbeat := time.NewTimer(quiet)
	defer heartbeat.Stop()
	for {
		var chunk *cluster.LogChunk
		select {
		case <-s.outbox.ready:
		case chunk = <-s.outbox.logs:
		case <-heartbeat.C:
		case <-inner.Done():
			return context.Cause(inner)
		case <-ctx.Done():
			return s.leave(inner)
		}
		message := s.outbox.take()
		message.Logs, message.Warning = chunk, s.agent.warning()
		message.Lease = s.outbox.ask(s.agent.cfg.Now())
		if err := s.send(inner, &message); err != nil {
			return err
		}
		heartbeat.Reset(quiet)
	}
}

// leave says farewell with the last news, and waits until the manager has closed the
// connection: then it has taken them in. One on this machine may be about to stop,
// and would cut the connection before it has read what is sent.
func (s *session) leave(inner context.Context) error {
	halting := s.agent.cfg.Halting != nil && s.agent.cfg.Halting()
	timer := time.AfterFunc(farewell, func() { s.conn.Close() })
	defer timer.Stop()
	message := s.outbox.take()
	message.Leaving, message.Halting = true, halting
	if err := s.send(inner, &message); err != nil {
		return err
	}
	<-inner.Done()
	return nil
}

// send writes one frame. A manager that doesn't take it in time is given up.
func (s *session) send(inner context.Context, message *cluster.FromAgent) error {
	limit := s.agent.cfg.ConnectTimeout
	if s.period > 0 {
		limit = silentPeriods * s.period
	}
	timer := time.AfterFunc(limit, func() { s.conn.Close() })
	defer timer.Stop()
	if err := cluster.WriteFrame(s.conn, message); err != nil {
		if cause := context.Cause(inner); cause != nil {
			return cause
		}
		return err
	}
	return nil
}

// read takes in what the manager sends, until the session ends.
func (s *session) read(inner context.Context) error {
	defer func() {
		if s.behindTimer != nil {
			s.behindTimer.Stop()
		}
	}()
	for {
		var message cluster.FromManager
		if err := cluster.ReadFrame(s.conn, &message); err != nil {
			if cause := context.Cause(inner); cause != nil {
				return cause
			}
			return err
		}
		if s.period > 0 {
			s.silence.heard(s.period)
		}
		if err := s.take(inner, &message); err != nil {
			return err
		}
	}
}

// take acts on one message.
func (s *session) take(inner context.Context, message *cluster.FromManager) error {
	if message.Refused != "" {
		if message.Copy {
			s.agent.cfg.OnCopy(message.Refused)
			s.agent.call((*taskSet).disown)
		}
		if refused := s.agent.cfg.OnRefused; refused != nil {
			refused()
		}
		return fmt.Errorf("manager refused the session: %s", message.Refused)
	}
	if message.Welcome != nil {
		if err := s.welcomed(message.Welcome); err != nil {
			return err
		}
	}
	if s.period == 0 {
		return fmt.Errorf("manager spoke before its welcome: %w", cluster.ErrInvalid)
	}
	if message.Peers != nil {
		s.agent.cfg.OnPeers(*message.Peers)
		s.agent.engineCalls.keepOnly(message.Peers.Managers)
	}
	if message.Engine != "" {
		s.agent.engineCalls.ask(message.Engine)
	}
	if at, ok := s.outbox.granted(message.Lease); ok {
		s.agent.call(func(held *taskSet) { held.renew(at.Add(cluster.FenceLease)) })
	}
	if len(message.Networks) > 0 {
		if err := s.toldNetworks(message.Networks); err != nil {
			return err
		}
	}
	if message.Assignments != nil {
		if err := s.assign(message.Assignments); err != nil {
			return err
		}
	}
	if message.Logs != nil {
		s.startLogs(inner, *message.Logs)
	}
	if message.LogCredit != nil {
		s.creditLogs(*message.LogCredit)
	}
	if message.CancelLogs != 0 {
		s.cancelLogs(message.CancelLogs)
	}
	return nil
}

// welcomed begins the session proper: all statuses are sent.
func (s *session) welcomed(welcome *cluster.Welcome) error {
	if s.period > 0 {
		return fmt.Errorf("manager said welcome twice: %w", cluster.ErrInvalid)
	}
	if welcome.Format != cluster.WireFormat {
		return fmt.Errorf("manager speaks format %d, this agent %d: %w", welcome.Format, cluster.WireFormat, cluster.ErrUnsupported)
	}
	if welcome.HeartbeatMillis <= 0 {
		return fmt.Errorf("manager gave no heartbeat period: %w", cluster.ErrInvalid)
	}
	s.period = time.Duration(welcome.HeartbeatMillis) * time.Millisecond
	s.silence.heard(s.period)
	s.agent.call(func(held *taskSet) {
		held.attach(s.outbox)
		if held.networks.keys != s.helloKeys || !slices.Equal(held.networks.uses, s.helloUses) || !reflect.DeepEqual(held.description, s.hello) {
			s.outbox.describe(held.description, held.networks.keys, held.networks.uses) // It changed since Hello, when there was no session to tell it.
		}
	})
	s.agent.cfg.OnCopy("")
	s.agent.log.Info("session opened", "heartbeat", s.period)
	close(s.welcome)
	return nil
}

// assign checks the sequence of assignments and hands them to the set.
//
// A complete set from a manager that hasn't got as far as what this agent has
// seen isn't acted upon: it might take away tasks that were assigned since. It
// waits until the differences after it have caught up, for behindLimit.
func (s *session) assign(m *cluster.Assignments) error {
	if !m.Full && (s.to == 0 || m.From != s.to) {
		return fmt.Errorf("assignments from %d to %d after %d: %w", m.From, m.To, s.to, errGap)
	}
	if m.To == 0 || m.To < s.to {
		return fmt.Errorf("assignments go back from %d to %d: %w", s.to, m.To, errGap)
	}
	s.to = m.To
	if s.behind != nil {
		m = merge(s.behind, m)
	}
	var err error
	wait := false
	s.agent.call(func(held *taskSet) {
		if wait = m.Full && m.To < held.newest; !wait {
			err = held.apply(m)
			if err == nil && len(held.revisions) > len(held.tasks)+maxIdleRevisions {
				err = errors.New("too many revisions that nothing uses")
			}
		}
	})
	if err != nil {
		return err
	}
	s.behind = nil
	if wait {
		s.behind = m
	}
	s.giveTime()
	return nil
}

// toldNetworks takes in what the manager says of networks.
func (s *session) toldNetworks(messages []cbor.RawMessage) error {
	var updates []*cluster.NetworkUpdate
	for _, message := range messages {
		u := new(cluster.NetworkUpdate)
		err := cluster.Decode(message, u)
		if err == nil && s.moreOf != nil {
			err = s.moreOf.Join(u)
			u = s.moreOf
		}
		if err != nil {
			return fmt.Errorf("take in networks: %w", err)
		}
		if s.moreOf = nil; u.More {
			s.moreOf = u
			continue
		}
		updates = append(updates, u)
	}
	var err error
	s.agent.call(func(held *taskSet) {
		for i := range updates {
			if err = held.networks.take(updates[i]); err != nil {
				return
			}
		}
		s.networksBehind = held.networks.behind()
		held.touchNetworks()
		held.networksNews()
	})
	s.giveTime()
	return err
}

// giveTime ends the session if the manager stays behind for too long.
func (s *session) giveTime() {
	waits := s.behind != nil || s.networksBehind
	switch {
	case waits && s.behindTimer == nil:
		s.behindTimer = time.AfterFunc(behindLimit, func() { s.end(errBehind) })
		s.agent.log.Debug("waiting for the manager to catch up", "index", s.to)
	case !waits && s.behindTimer != nil:
		s.behindTimer.Stop()
		s.behindTimer = nil
	}
}

// attach makes box the present session's and puts in all that is held.
func (s *taskSet) attach(box *outbox) {
	s.outbox = box
	s.networks.begin()
	box.setEngine(s.engineAway())
	box.setFenced(s.anyFenced())
	for taskID, t := range s.tasks {
		if !t.removing && t.status.State >= cluster.StateAccepted {
			box.report(cluster.Report{TaskID: taskID, Status: t.status, Traceparent: t.span.Traceparent()})
		}
	}
}
