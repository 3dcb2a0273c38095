package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"golang.org/x/sync/errgroup"

	"skep/cluster"
	"skep/cmd/lab/report"
	"skep/cmd/lab/scenario"
)

const (
	// changeLimit is how long a change that a step asks for may take to be accepted.
	changeLimit = 30 * time.Second
	// busyLoop is a program that only takes a processor.
	busyLoop = "while :; do :; done"
)

// steps does the steps in order and stops at the first that can't be done.
func (x *experiment) steps(ctx context.Context) error {
	for _, s := range x.scenario.Steps {
		x.say(s.Text)
		var err error
		if s.Verb == "wait" {
			err = x.wait(ctx, s)
		} else {
			err = x.act(ctx, s)
		}
		if err != nil {
			return fmt.Errorf("line %d: %s: %w", s.Line, s.Text, err)
		}
	}
	return nil
}

// act does a step that isn't a wait, and records when it began and took effect.
func (x *experiment) act(ctx context.Context, s scenario.Step) error {
	names, agents, err := x.choose(ctx, s)
	if err != nil {
		return err
	}
	members := x.named(names)
	done := report.Step{Line: s.Line, Verb: s.Verb, Text: s.Text, Nodes: names, Service: s.Service, Measures: s.Measures, Agents: agents, Began: x.now()}
	switch s.Verb {
	case "kill", "stop", "pause", "cut", "fill", "freeze", "leave", "move", "cut-power":
		x.setAway(members, true)
	}
	names, err = x.acts(ctx, s, members)
	if err != nil {
		return err
	}
	switch s.Verb {
	case "start", "resume", "heal", "thaw":
		x.setAway(members, false)
	case "move":
		x.setAway(slices.DeleteFunc(members, func(m *member) bool { return !m.proc.running() }), false)
	case "join":
		done.Nodes = names
	}
	if s.As != "" {
		x.bound[s.As] = done.Nodes
	}
	done.Ended = x.now()
	x.mu.Lock()
	x.round.Steps = append(x.round.Steps, done)
	x.mu.Unlock()
	return nil
}

// choose finds the nodes of a step, and with whom the agents speak where that matters.
func (x *experiment) choose(ctx context.Context, s scenario.Step) (names []string, agents map[string]string, err error) {
	now := scenario.Nodes{Touched: map[string]bool{}, Bound: x.bound}
	for _, m := range x.members {
		if m.role == "manager" {
			now.Managers = append(now.Managers, m.name)
		} else {
			now.Workers = append(now.Workers, m.name)
		}
	}
	for _, done := range x.round.Steps {
		for _, name := range done.Nodes {
			now.Touched[name] = true
		}
	}
	noticed := slices.ContainsFunc(s.Measures, func(m scenario.Measure) bool { return m.Name == "noticed" })
	if noticed || s.Target.Wants().Sessions {
		if now.Sessions, err = x.sessions(ctx); err != nil {
			return nil, nil, err
		}
	}
	if s.Target.Wants().Leader {
		if now.Leader, err = x.leader(ctx); err != nil {
			return nil, nil, err
		}
	}
	names, err = s.Target.Choose(now)
	return names, now.Sessions, err
}

// acts does what the verb says to the members. It returns the names of nodes that joined.
func (x *experiment) acts(ctx context.Context, s scenario.Step, members []*member) ([]string, error) {
	each := func(do func(*member) error) error {
		var group errgroup.Group
		for _, m := range members {
			group.Go(func() error {
				if err := do(m); err != nil {
					return fmt.Errorf("%s: %w", m.name, err)
				}
				return nil
			})
		}
		return group.Wait()
	}
	names := func() []string {
		var names []string
		for _, m := range members {
			names = append(names, m.name)
		}
		return names
	}
	onDisk := func(do func(*disk) error) error {
		return each(func(m *member) error {
			if m.disk == nil {
				return errors.New("only managers have disks of their own")
			}
			return do(m.disk)
		})
	}
	switch s.Verb {
	case "kill":
		return nil, each(func(m *member) error { m.proc.kill(); return nil })
	case "stop":
		return nil, each(func(m *member) error { return m.proc.stop() })
	case "start":
		moments := rand.New(rand.NewPCG(uint64(x.round.Number), uint64(s.Line)))
		after := map[*member]time.Duration{}
		for _, m := range members {
			after[m] = time.Duration(moments.Float64() * float64(s.Within))
		}
		return nil, each(func(m *member) error {
			if m.proc.running() {
				return nil
			}
			select {
			case <-time.After(after[m]):
			case <-ctx.Done():
				return ctx.Err()
			}
			return m.start(ctx)
		})
	case "restart":
		for range s.Times {
			if err := each(func(m *member) error { return errors.Join(m.proc.stop(), m.start(ctx)) }); err != nil {
				return nil, err
			}
		}
	case "cut-power":
		return nil, each(func(m *member) error {
			m.host.cut()
			<-m.proc.ended
			return nil
		})
	case "pause":
		return nil, each(func(m *member) error { return m.proc.cmd.Process.Signal(syscall.SIGSTOP) })
	case "resume":
		return nil, each(func(m *member) error { return m.proc.cmd.Process.Signal(syscall.SIGCONT) })
	case "cut":
		x.fabric.disturb(linkFault{nodes: names(), in: s.Only != "outgoing", out: s.Only != "incoming"})
	case "delay":
		x.fabric.disturb(linkFault{nodes: names(), delay: s.By, jitter: s.Jitter})
	case "lose":
		x.fabric.disturb(linkFault{nodes: names(), loss: s.Share})
	case "heal":
		x.fabric.heal(names())
	case "fill":
		return nil, onDisk((*disk).fill)
	case "free":
		return nil, onDisk((*disk).free)
	case "freeze":
		return nil, onDisk((*disk).freeze)
	case "thaw":
		return nil, onDisk((*disk).thaw)
	case "restart-engine":
		return nil, each(func(m *member) error {
			if m.engine == nil {
				return errors.New("its engine is the machine's, which the lab leaves alone: choose a worker")
			}
			m.engine.kill()
			return m.engine.start(ctx)
		})
	case "move":
		return nil, each(func(m *member) error { return x.move(ctx, m) })
	case "set-clock":
		return nil, each(func(m *member) error {
			if m.proc.running() {
				return errors.New("its daemon runs: stop it first")
			}
			m.setClock(s.Ahead)
			return nil
		})
	case "join":
		return x.join(ctx, s)
	case "leave":
		return nil, each(func(m *member) error { return x.leave(ctx, m) })
	case "store":
		return nil, x.store(ctx, s.Count)
	case "starve":
		return nil, x.starve(s.Count)
	case "feed":
		for _, l := range x.loops {
			l.kill()
		}
	case "update":
		return nil, x.change(ctx, s.Service, "", func(spec *swarm.ServiceSpec) {
			container := spec.TaskTemplate.ContainerSpec
			container.Image = x.images()[s.Image]
			delete(container.Labels, cluster.LabelSimulate+"reject-rate")
			if s.Image == "missing" {
				container.Labels[cluster.LabelSimulate+"reject-rate"] = "1"
			}
			spec.TaskTemplate.ForceUpdate++
		})
	case "scale":
		return nil, x.change(ctx, s.Service, "", func(spec *swarm.ServiceSpec) {
			replicas := uint64(s.Count)
			spec.Mode.Replicated.Replicas = &replicas
		})
	case "rollback":
		return nil, x.change(ctx, s.Service, "previous", func(*swarm.ServiceSpec) {})
	default:
		return nil, fmt.Errorf("nobody knows how to %s", s.Verb)
	}
	return nil, nil
}

// images are what the words of scenarios stand for.
func (x *experiment) images() map[string]string {
	if x.scenario.Needs().Hosts {
		return map[string]string{"old": checkedImage(1), "new": checkedImage(2), "missing": missingImage}
	}
	return map[string]string{"old": oldImage, "new": newImage, "missing": missingImage}
}

// missingImage is one that no engine and no registry has.
const missingImage = "timecheck:missing"

// change updates a service through a manager that is there. It tries until the change is accepted.
func (x *experiment) change(ctx context.Context, service, rollback string, edit func(*swarm.ServiceSpec)) error {
	return until(ctx, changeLimit, "the change to be accepted", func(ctx context.Context) error {
		err := errors.New("no manager is there to be asked")
		for _, m := range x.present() {
			var s swarm.Service
			if s, _, err = m.api.ServiceInspectWithRaw(ctx, service, swarm.ServiceInspectOptions{}); err != nil {
				continue
			}
			edit(&s.Spec)
			if _, err = m.api.ServiceUpdate(ctx, s.ID, s.Version, s.Spec, swarm.ServiceUpdateOptions{Rollback: rollback}); err == nil {
				return nil
			}
		}
		return err
	})
}

// join adds nodes to the cluster, at once.
func (x *experiment) join(ctx context.Context, s scenario.Step) ([]string, error) {
	through := x.present()
	if len(through) == 0 {
		return nil, errors.New("no manager is there to join")
	}
	cluster, err := through[0].api.SwarmInspect(ctx)
	if err != nil {
		return nil, err
	}
	token := map[string]string{"worker": cluster.JoinTokens.Worker, "manager": cluster.JoinTokens.Manager}[s.Kind]
	var names []string
	var group errgroup.Group
	for range s.Count {
		m, err := x.add(ctx, s.Kind)
		if err != nil {
			return nil, errors.Join(err, group.Wait())
		}
		names = append(names, m.name)
		group.Go(func() error { return m.join(ctx, through[0].addr, token) })
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, name := range names {
		x.round.Nodes = append(x.round.Nodes, report.Node{Name: name, Role: s.Kind, Joined: x.now()})
	}
	return names, nil
}

// leave lets a node leave in order, and removes it from the cluster.
func (x *experiment) leave(ctx context.Context, m *member) error {
	info, err := m.api.Info(ctx)
	if err != nil {
		return err
	}
	if err := m.api.SwarmLeave(ctx, true); err != nil {
		return err
	}
	err = until(ctx, changeLimit, "the node to be removed", func(ctx context.Context) error {
		err := errors.New("no manager is there to be asked")
		for _, through := range x.present() {
			if err = through.api.NodeRemove(ctx, info.Swarm.NodeID, swarm.NodeRemoveOptions{Force: true}); err == nil {
				return nil
			}
		}
		return err
	})
	m.proc.kill()
	return err
}

// moveLimit is how long a node may take to see that its machine has another address.
const moveLimit = 30 * time.Second

// move gives a node's machine another address, and waits until the node knows it if it
// runs.
func (x *experiment) move(ctx context.Context, m *member) error {
	addr, err := x.fabric.move(m.in, m.addr)
	if err != nil {
		return err
	}
	m.addr = addr
	if !m.proc.running() {
		return nil
	}
	return until(ctx, moveLimit, "the node to see its address", func(ctx context.Context) error {
		info, err := m.api.Info(ctx)
		if err == nil && info.Swarm.NodeAddr != addr {
			err = fmt.Errorf("it has %s and says %s", addr, info.Swarm.NodeAddr)
		}
		return err
	})
}

// storedSecret is nearly the largest that docker takes.
const storedSecret = 499_000

// store creates large secrets, one after the other by each of the managers.
func (x *experiment) store(ctx context.Context, count int) error {
	present := x.present()
	if len(present) == 0 {
		return errors.New("no manager is there to be asked")
	}
	var group errgroup.Group
	for at, m := range present {
		group.Go(func() error {
			for i := at; i < count; i += len(present) {
				spec := swarm.SecretSpec{Annotations: swarm.Annotations{Name: fmt.Sprint("large-", i)}, Data: bytes.Repeat([]byte{'s'}, storedSecret)}
				if _, err := m.api.SecretCreate(ctx, spec); err != nil {
					return fmt.Errorf("create secret %d: %w", i, err)
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// starve takes the processors with busy loops.
func (x *experiment) starve(loops int) error {
	for i := range loops {
		l := &process{name: fmt.Sprintf("busy loop %d", i+1), logFile: os.DevNull}
		if err := l.run("sh", "-c", busyLoop); err != nil {
			return err
		}
		x.loops = append(x.loops, l)
	}
	return nil
}

// wait waits for what the step says.
func (x *experiment) wait(ctx context.Context, s scenario.Step) error {
	now := x.now()
	waited := report.Step{Line: s.Line, Verb: s.Verb, Text: s.Text, Service: s.Service, Began: now, Ended: now}
	var err error
	if waited.Nodes, err = s.Target.Choose(scenario.Nodes{Bound: x.bound, Managers: x.namesOf("manager"), Workers: x.namesOf("worker")}); err != nil {
		return err
	}
	x.mu.Lock()
	x.round.Steps = append(x.round.Steps, waited)
	place, writes := len(x.round.Steps)-1, len(x.accepted)
	x.mu.Unlock()
	switch s.Until {
	case "pause":
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(s.Pause):
			return nil
		}
	case "writes":
		return until(ctx, s.Limit, "writes", func(context.Context) error {
			x.mu.Lock()
			defer x.mu.Unlock()
			if have := len(x.accepted) - writes; have < writesAgain {
				return fmt.Errorf("%d were accepted", have)
			}
			return nil
		})
	}
	return until(ctx, s.Limit, s.Until, func(context.Context) error {
		x.mu.Lock()
		defer x.mu.Unlock()
		if !x.round.Came(place, s.Until) {
			return errors.New("no manager says so")
		}
		return nil
	})
}

func (x *experiment) namesOf(role string) []string {
	var names []string
	for _, m := range x.members {
		if m.role == role {
			names = append(names, m.name)
		}
	}
	return names
}
