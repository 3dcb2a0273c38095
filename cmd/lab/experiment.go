package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"golang.org/x/sync/errgroup"

	"skep/cluster"
	"skep/cmd/lab/report"
	"skep/cmd/lab/scenario"
)

const (
	// askLimit is how long a question to one manager may take.
	askLimit = 5 * time.Second
	// writesAgain is how many accepted writes "wait: writes" waits for.
	writesAgain = 20
)

// experiment is one round of a scenario: a cluster of its own, clients that write,
// watchers that look, the steps, and the record of it all.
type experiment struct {
	setting
	dir    string
	fabric *fabric // nil when the nodes have loopback addresses
	block  int     // of those addresses
	// outside is the machine of the services' users, nil where there are none.
	outside     *namespace
	outsideAddr string
	bound       map[string][]string
	loops       []*process
	// say shows what is going on.
	say func(string)

	began time.Time

	mu       sync.Mutex // guards the fields below
	members  []*member
	round    report.Round
	ids      map[string]bool   // of nodes that have been in the cluster
	names    map[string]string // of nodes by ID
	accepted []string          // names of the writes that must be there in the end
	reasons  map[string]int    // places in round.Refusals
	latest   map[string]int    // place in round.Views of each manager's last
}

// errHuddled means that a cluster came out as no scenario wants it: see spread.
var errHuddled = errors.New("all workers have their sessions with one manager")

// runRound does the scenario once. What went wrong with the round itself stands in its
// Failure; the error is for a lab that can't go on.
func runRound(ctx context.Context, s setting, number int, keep string, say func(string)) (round report.Round, err error) {
	for {
		if round, err = tryRound(ctx, s, number, keep, say); !errors.Is(err, errHuddled) {
			return round, err
		}
	}
}

// tryRound is runRound, but fails with errHuddled when the cluster is to be made anew.
func tryRound(ctx context.Context, s setting, number int, keep string, say func(string)) (round report.Round, err error) {
	dir, err := os.MkdirTemp("", "skep-lab-")
	if err != nil {
		return round, err
	}
	x := &experiment{setting: s, dir: dir, bound: map[string][]string{}, say: say, ids: map[string]bool{}, names: map[string]string{},
		reasons: map[string]int{}, latest: map[string]int{}}
	x.round.Number = number
	defer func() { err = errors.Join(err, x.close()) }()
	failure := x.do(ctx)
	if ctx.Err() != nil {
		return round, ctx.Err()
	}
	if errors.Is(failure, errHuddled) {
		return round, failure
	}
	if failure != nil {
		x.round.Failure = failure.Error()
		if err := x.keepLogs(keep); err != nil {
			return round, err
		}
	}
	return x.round, nil
}

// do is the round from the first process to the last check.
func (x *experiment) do(ctx context.Context) error {
	x.say("forming a cluster")
	if err := x.form(ctx); err != nil {
		return fmt.Errorf("form the cluster: %w", err)
	}
	if err := x.createServices(ctx); err != nil {
		return fmt.Errorf("create the services: %w", err)
	}
	x.began = time.Now()
	busy, rest := context.WithCancel(ctx)
	var around sync.WaitGroup
	for _, m := range x.present() {
		around.Go(func() { x.watch(busy, m) })
	}
	managers := x.present()
	for w := range x.scenario.Load.Writers {
		around.Go(func() { x.write(busy, w, managers[w%len(managers)]) })
	}
	end, err := x.ask(ctx)
	if err == nil {
		err = x.steps(ctx)
	}
	end()
	x.mu.Lock()
	x.round.Length = x.now()
	x.mu.Unlock()
	rest()
	around.Wait()
	told := x.readTimeline(ctx) // also of a round that couldn't be completed
	if err := cmp.Or(err, told); err != nil {
		return err
	}
	x.say("looking for every accepted write")
	if err := x.verify(ctx); err != nil {
		return fmt.Errorf("look for the accepted writes: %w", err)
	}
	if err := x.readSessions(); err != nil {
		return err
	}
	return x.timeContainers(ctx)
}

// now is the present instant of the round.
func (x *experiment) now() report.Ms { return report.Since(x.began, time.Now()) }

// form starts the nodes and makes them a cluster.
func (x *experiment) form(ctx context.Context) error {
	total := x.scenario.Managers + x.scenario.Workers
	for _, s := range x.scenario.Steps {
		if s.Verb == "join" {
			total += s.Count
		}
	}
	if x.isolated {
		x.fabric = newFabric()
	} else {
		var err error
		if x.block, err = freeBlock(total); err != nil {
			return err
		}
	}
	if x.scenario.Needs().Hosts {
		if err := x.newOutside(); err != nil {
			return err
		}
	}
	for i := range x.scenario.Managers + x.scenario.Workers {
		role := "manager"
		if i >= x.scenario.Managers {
			role = "worker"
		}
		if _, err := x.add(ctx, role); err != nil {
			return err
		}
	}
	var peers []peer
	for _, m := range x.members {
		peers = append(peers, m.peer)
		x.round.Nodes = append(x.round.Nodes, report.Node{Name: m.name, Role: m.role})
	}
	if err := form(ctx, peers, x.scenario.Managers); err != nil {
		return err
	}
	if err := until(ctx, 2*time.Minute, "the cluster to settle", func(ctx context.Context) error {
		list, err := x.nodes(ctx, x.members[0])
		if err != nil {
			return err
		}
		return allThere(list, x.scenario.Managers, len(peers))
	}); err != nil {
		return err
	}
	return x.spread(ctx)
}

// spread refuses a cluster whose workers all have their sessions with the same manager: a
// fault that hits that one and its agents would leave nobody to run the tasks. Which one an
// agent prefers is decided by the IDs, so it stays as it is.
func (x *experiment) spread(ctx context.Context) error {
	if x.scenario.Managers < 2 || x.scenario.Workers < 2 {
		return nil
	}
	with, err := x.sessions(ctx)
	if err == nil && huddled(with, x.namesOf("worker")) {
		err = errHuddled
	}
	return err
}

// huddled tells whether all workers have their sessions with the same manager.
func huddled(with map[string]string, workers []string) bool {
	for _, name := range workers {
		if with[name] == "" || with[name] != with[workers[0]] {
			return false
		}
	}
	return true
}

// nodes asks a manager for the nodes, and learns their names.
func (x *experiment) nodes(ctx context.Context, m *member) ([]swarm.Node, error) {
	list, err := m.api.NodeList(ctx, swarm.NodeListOptions{})
	if err != nil {
		return nil, err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, n := range list {
		x.ids[n.ID] = true
		x.names[n.ID] = n.Description.Hostname
	}
	return list, nil
}

// createServices creates what the scenario runs and waits until it does.
func (x *experiment) createServices(ctx context.Context) error {
	if err := x.networks(ctx); err != nil {
		return err
	}
	t := timer{api: x.members[0].api}
	for _, s := range x.scenario.Services {
		x.say("starting " + s.Name)
		if _, _, err := t.create(ctx, specOf(s)); err != nil {
			return err
		}
	}
	return nil
}

// specOf is the service in the API's words.
func specOf(s scenario.Service) swarm.ServiceSpec {
	spec := benchSpec(s.Name, uint64(s.Replicas))
	spec.UpdateConfig.Parallelism = uint64(s.Parallelism)
	spec.UpdateConfig.Monitor = s.Monitor
	spec.UpdateConfig.FailureAction = s.OnFailure
	if s.On != "all" {
		spec.TaskTemplate.Placement = &swarm.Placement{Constraints: []string{"node.role == " + strings.TrimSuffix(s.On, "s")}}
	}
	spec.TaskTemplate.ContainerSpec.Labels = map[string]string{}
	if s.StartDelay > 0 {
		spec.TaskTemplate.ContainerSpec.Labels[cluster.LabelSimulate+"start-delay"] = s.StartDelay.String()
	}
	if s.Network != "" {
		spec.TaskTemplate.Networks = []swarm.NetworkAttachmentConfig{{Target: s.Network}}
	}
	if s.Publish != 0 || s.Network != "" {
		spec.TaskTemplate.ContainerSpec.Image = checkedImage(1)
		spec.TaskTemplate.ContainerSpec.Args = []string{"serve"}
		spec.TaskTemplate.ContainerSpec.Env = []string{"TASK={{.Task.Name}}"}
	}
	if s.Publish != 0 {
		spec.EndpointSpec = &swarm.EndpointSpec{Ports: []swarm.PortConfig{{PublishedPort: uint32(s.Publish), TargetPort: 80}}}
	}
	return spec
}

// verify looks for every accepted write through every manager that is there.
func (x *experiment) verify(ctx context.Context) error {
	asked := 0
	for _, m := range x.present() {
		have := map[string]bool{}
		err := until(ctx, time.Minute, "an answer of "+m.name, func(ctx context.Context) error {
			list, err := m.api.ConfigList(ctx, swarm.ConfigListOptions{})
			for _, c := range list {
				have[c.Spec.Name] = true
			}
			return err
		})
		if err != nil {
			return err
		}
		asked++
		x.missing(have)
	}
	if asked == 0 {
		return errors.New("no manager is there to be asked: let the steps bring one back")
	}
	return nil
}

// missing notes which accepted writes a manager doesn't have.
func (x *experiment) missing(have map[string]bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, name := range x.accepted {
		if !have[name] && !slices.Contains(x.round.Lost, name) {
			x.round.Lost = append(x.round.Lost, name)
		}
	}
}

// timeContainers times the engine alone at starting as many containers as the nodes
// of the first step that measures "moved" had to lose.
func (x *experiment) timeContainers(ctx context.Context) error {
	if x.driver != "docker" && !x.swarm {
		return nil
	}
	for _, s := range x.round.Steps {
		if !slices.ContainsFunc(s.Measures, func(m scenario.Measure) bool { return m.Name == "moved" }) {
			continue
		}
		tasks := tasksBefore(x.round.Views, s)
		host := x.lab.engine
		if x.swarm {
			host = x.present()[0].engine.socket()
		}
		engine, err := connect(host)
		if err != nil {
			return err
		}
		defer engine.Close()
		took, err := direct(ctx, engine, max(1, tasks))
		x.round.ContainerStart = report.Since(time.Time{}, time.Time{}.Add(took))
		return err
	}
	return nil
}

// tasksBefore is how many tasks ran on the step's nodes when it began.
func tasksBefore(views []report.View, s report.Step) int {
	n := 0
	for _, v := range views {
		if v.At > s.Began {
			break
		}
		n = 0
		for _, byNode := range v.Running {
			for _, name := range s.Nodes {
				n += byNode[name]
			}
		}
	}
	return n
}

// keepLogs copies the nodes' logs to where the results are.
func (x *experiment) keepLogs(dir string) error {
	dir = filepath.Join(dir, fmt.Sprintf("%s-round-%d", x.scenario.Name, x.round.Number))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var errs []error
	for _, m := range x.members {
		if m.proc != nil {
			errs = append(errs, copyFile(m.proc.logFile, filepath.Join(dir, m.name+".log")))
		}
	}
	return errors.Join(errs...)
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// close ends all that the round started and removes all that it made. It has
// deadlines of its own, since the caller's context may have ended.
func (x *experiment) close() error {
	var errs []error
	for _, l := range x.loops {
		l.kill()
	}
	var group errgroup.Group
	for _, m := range x.members {
		group.Go(m.close)
	}
	errs = append(errs, group.Wait())
	buryOrphans()
	if x.outside != nil {
		x.outside.close()
	}
	if x.fabric != nil {
		x.fabric.close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if x.driver == "docker" && !x.swarm {
		errs = append(errs, removeContainersOf(ctx, x.lab.engine, x.ids))
	}
	if x.scenario.Needs().Hosts {
		errs = append(errs, removeGroups(x.dir))
	}
	// The last mounts go with the last processes, which takes the kernel a moment.
	errs = append(errs, until(ctx, 30*time.Second, "the directory to go", func(context.Context) error { return os.RemoveAll(x.dir) }))
	return errors.Join(errs...)
}
