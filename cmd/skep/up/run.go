package up

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"skep/cluster"
)

// Binary is a skep for machines of one architecture.
type Binary struct {
	Digest string
	// Compressed makes what goes there: it takes a second, and is seldom needed.
	Compressed func() ([]byte, error)
}

// Compress makes of a file what goes to machines.
func Compress(file []byte) ([]byte, error) {
	var out bytes.Buffer
	w, err := gzip.NewWriterLevel(&out, gzip.BestSpeed)
	if err != nil {
		return nil, err
	}
	_, err = w.Write(file)
	err = errors.Join(err, w.Close())
	return out.Bytes(), err
}

// Up carries out plans.
type Up struct {
	Runner Runner
	// Binaries are by architecture.
	Binaries map[string]Binary
	Options  Options
	// Say shows progress; host is empty for what concerns all.
	Say func(host, words string)
	// Nonce makes what nobody else knows.
	Nonce func() string
	Now   func() time.Time
	// Every is how long to wait before looking again, and Patience how long what comes about by
	// itself may take; 0 is half a second, and two minutes.
	Every, Patience time.Duration

	mu sync.Mutex // guards the fields below
	// hello is of the machines that are connected, tool where a skep like this one is on them.
	hello map[string]Hello
	tool  map[string]string
	// wiped are those on which nothing of skep should be left.
	wiped map[string]bool
	// failed are those that couldn't be connected, and why.
	failed map[string]error
	// first is what was found only once: which ports are taken and cut.
	first map[string]Sight
}

// mostAtOnce is how many machines are connected at the same time: sshd, of a machine that several names lead to,
// drops those that are more than ten on their way.
const mostAtOnce = 8

// Connect connects machines: first, at once, those that it can without asking anything, and then those that
// may ask, one after the other.
func (u *Up) Connect(ctx context.Context, hosts []string) error {
	u.hello, u.tool, u.failed, u.wiped = map[string]Hello{}, map[string]string{}, map[string]error{}, map[string]bool{}
	asking := map[string]bool{}
	connect := func(host string, mayAsk bool) {
		h, err := u.Runner.Connect(ctx, host, mayAsk)
		u.mu.Lock()
		defer u.mu.Unlock()
		switch {
		case ctx.Err() != nil:
		case !mayAsk && errors.Is(err, ErrAsks):
			asking[host] = true
		case err != nil:
			u.failed[host] = err
			u.Say(host, "no connection")
		default:
			u.hello[host] = h
			u.Say(host, "connected")
		}
	}
	u.Say("", "connect to the machines")
	var work errgroup.Group
	work.SetLimit(mostAtOnce)
	for _, host := range hosts {
		work.Go(func() error { connect(host, false); return nil })
	}
	_ = work.Wait()
	for _, host := range hosts {
		if asking[host] && ctx.Err() == nil {
			u.Say(host, "connect, which may ask something")
			connect(host, true)
		}
	}
	return ctx.Err()
}

// Look looks at machines, all at once.
func (u *Up) Look(ctx context.Context, hosts []string) (World, error) {
	world := World{}
	var mu sync.Mutex // guards world
	var work sync.WaitGroup
	for _, host := range hosts {
		work.Go(func() {
			s := u.look(ctx, host)
			mu.Lock()
			defer mu.Unlock()
			world[host] = s
		})
	}
	work.Wait()
	return world, ctx.Err()
}

// look looks at one machine.
func (u *Up) look(ctx context.Context, host string) *Sight {
	u.mu.Lock()
	h, failed, first, wiped := u.hello[host], u.failed[host], u.first[host], u.wiped[host]
	u.mu.Unlock()
	s := &Sight{Arch: h.Arch, Reached: h.Reached, Cut: first.Cut, Taken: first.Taken}
	if failed != nil {
		s.Err, s.Do = failed.Error(), "see that \"ssh "+host+"\" works"
		return s
	}
	if wiped {
		var out bytes.Buffer
		err := u.Runner.Run(ctx, host, Order{Verb: "left", Out: &limited{w: &out, left: mostAnswer}})
		if left := strings.Fields(out.String()); err == nil && len(left) > 0 {
			err = fmt.Errorf("%s is left", strings.Join(left, ", "))
		}
		if err != nil {
			s.Err = "remove skep from it: " + err.Error()
		}
		return s
	}
	b, ok := u.Binaries[h.Arch]
	if !ok {
		return s // That is said.
	}
	var tool string
	if err := within(ctx, stageLimit, func(ctx context.Context) (err error) {
		tool, err = u.stage(ctx, host, b)
		return err
	}); err != nil {
		s.Err, s.Do = "put skep there: "+err.Error(), "correct that, and run this again"
		return s
	}
	var out bytes.Buffer
	asked := u.Now()
	err := within(ctx, lookAtLimit, func(ctx context.Context) error {
		return u.Runner.Run(ctx, host, Order{Verb: "skep", Args: []string{tool, "machine", "facts"}, Out: &limited{w: &out, left: mostAnswer}})
	})
	answered := u.Now()
	if err == nil {
		err = json.Unmarshal(out.Bytes(), &s.Facts)
	}
	if err != nil {
		s.Err, s.Do = "look at it: "+err.Error(), "correct that, and run this again"
		return s
	}
	// Somewhere between asking and answering it looked at its clock.
	s.Unsure = answered.Sub(asked) / 2
	s.Ahead = s.Now.Sub(asked.Add(s.Unsure))
	return s
}

// limited takes so much and no more.
type limited struct {
	w    io.Writer
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	if l.left -= len(p); l.left < 0 {
		return 0, errors.New("it says too much")
	}
	return l.w.Write(p)
}

// stage has a skep like this one on the machine, wherever, and says where.
func (u *Up) stage(ctx context.Context, host string, b Binary) (string, error) {
	tool := u.toolOn(host)
	if tool != "" {
		return tool, nil
	}
	var out bytes.Buffer
	if err := u.Runner.Run(ctx, host, Order{Verb: "digests", Out: &limited{w: &out, left: mostAnswer}}); err != nil {
		return "", err
	}
	for line := range strings.Lines(out.String()) {
		if sum, path, _ := strings.Cut(strings.TrimSpace(line), " "); sum == b.Digest && !strings.HasSuffix(path, ".part") {
			tool = strings.TrimLeft(path, " *")
			break
		}
	}
	if tool == "" {
		tool = stagedPrefix + b.Digest[:16]
		compressed, err := b.Compressed()
		if err != nil {
			return "", err
		}
		u.Say(host, fmt.Sprintf("send skep %s (%.1f MB)", u.Options.Version, float64(len(compressed))/1e6))
		if err := u.Runner.Run(ctx, host, Order{Verb: "stage", Args: []string{b.Digest, tool}, In: bytes.NewReader(compressed)}); err != nil {
			return "", err
		}
	}
	u.moved(host, tool)
	return tool, nil
}

// toolOn is where a skep like this one is on the machine.
func (u *Up) toolOn(host string) string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.tool[host]
}

func (u *Up) moved(host, tool string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.tool[host] = tool
}

// Root tells whether ssh logs in as root on a machine.
func (u *Up) Root(host string) bool { return u.hello[host].Root }

// Unstage removes what was put on machines to look at them.
func (u *Up) Unstage(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), connectLimit)
	defer cancel()
	var work errgroup.Group
	for _, host := range slices.Sorted(maps.Keys(u.tool)) {
		if strings.HasPrefix(u.toolOn(host), stagedPrefix) {
			work.Go(func() error {
				if err := u.Runner.Run(ctx, host, Order{Verb: "unstage"}); err != nil {
					return fmt.Errorf("%s: remove %s*: %w", host, stagedPrefix, err)
				}
				return nil
			})
		}
	}
	return work.Wait()
}

// TryPorts tries the ports between every pair of machines, and notes in the world what is cut. It does nothing
// when all are nodes already: their cluster says how they reach each other.
func (u *Up) TryPorts(ctx context.Context, l List, w World) error {
	var hosts []string
	strangers := false
	for _, m := range l.Machines {
		if s := w[m.Host]; s.Err == "" && u.toolOn(m.Host) != "" {
			hosts = append(hosts, m.Host)
			strangers = strangers || !member(s)
		}
	}
	if !strangers || len(hosts) == 0 {
		return nil
	}
	u.Say("", "try the ports between all machines")
	nonce := u.Nonce()
	held := map[string][]string{}
	for _, host := range hosts {
		if s := w[host]; member(s) && s.Skep.Running == "" {
			held[host] = asked(w) // Its daemon may want them any moment.
		}
	}
	ends, failures, err := u.listen(ctx, hosts, nonce, asked(w), held)
	defer func() { ends() }()
	if err != nil {
		return err
	}
	for host, err := range failures {
		w[host].Err = "listen at its ports: " + err.Error()
	}
	u.first = map[string]Sight{}
	var mu sync.Mutex // guards u.first
	var work sync.WaitGroup
	for _, host := range hosts {
		if w[host].Err != "" {
			continue
		}
		if !member(w[host]) {
			w[host].Taken = held[host]
		}
		work.Go(func() {
			var cuts []Cut
			err := within(ctx, lookAtLimit, func(ctx context.Context) (err error) {
				cuts, err = u.dial(ctx, host, Asking{nonce, targets(l, w, host, held)})
				return err
			})
			mu.Lock()
			defer mu.Unlock()
			if w[host].Cut = cuts; err != nil {
				w[host].Err = "try other machines' ports: " + err.Error()
			}
			u.first[host] = Sight{Cut: cuts, Taken: w[host].Taken}
		})
	}
	work.Wait()
	return ctx.Err()
}

// listen has machines listen until ends is called, and notes who has which port already.
func (u *Up) listen(ctx context.Context, hosts []string, nonce string, ports []string, held map[string][]string) (ends func(), failures map[string]error, err error) {
	ctx, cancel := context.WithCancel(ctx)
	var work sync.WaitGroup
	var inputs []*io.PipeWriter
	ends = func() {
		for _, in := range inputs {
			_ = in.Close()
		}
		ended := make(chan struct{})
		go func() { work.Wait(); close(ended) }()
		select {
		case <-ended:
		case <-time.After(connectLimit):
		}
		cancel()
		work.Wait()
	}
	type answer struct {
		host string
		said Listening
		err  error
	}
	answers, waiting := make(chan answer, 2*len(hosts)), 0
	for _, host := range hosts {
		if held[host] != nil {
			continue
		}
		waiting++
		in, feed := io.Pipe()
		said, out := io.Pipe()
		inputs = append(inputs, feed)
		work.Go(func() {
			err := u.Runner.Run(ctx, host, Order{Verb: "skep", Args: append([]string{u.toolOn(host), "machine", "listen"}, ports...), In: in, Out: out})
			if err == nil {
				err = errors.New("it ended before it was told to")
			}
			_ = in.CloseWithError(err)
			_ = out.CloseWithError(err)
		})
		work.Go(func() { _, _ = io.WriteString(feed, nonce+"\n") })
		work.Go(func() {
			a := answer{host: host}
			a.err = json.NewDecoder(said).Decode(&a.said)
			answers <- a
			_, _ = io.Copy(io.Discard, said)
		})
	}
	failures = map[string]error{}
	limit := time.After(2 * connectLimit)
	for range waiting {
		select {
		case a := <-answers:
			if a.err != nil {
				failures[a.host] = a.err
			}
			held[a.host] = a.said.Taken
		case <-limit:
			return ends, failures, errors.New("listen at the machines' ports: some don't answer")
		case <-ctx.Done():
			return ends, failures, ctx.Err()
		}
	}
	return ends, failures, nil
}

func (u *Up) dial(ctx context.Context, host string, a Asking) (cuts []Cut, err error) {
	text, err := json.Marshal(a)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = u.Runner.Run(ctx, host, Order{Verb: "skep", Args: []string{u.toolOn(host), "machine", "dial"}, In: bytes.NewReader(text), Out: &limited{w: &out, left: mostAnswer}})
	if err == nil {
		err = json.Unmarshal(out.Bytes(), &cuts)
	}
	slices.SortFunc(cuts, func(a, b Cut) int { return strings.Compare(a.To+" "+a.Port, b.To+" "+b.Port) })
	return cuts, err
}

// ProblemsError is problems that somebody must solve first.
type ProblemsError []Problem

func (e ProblemsError) Error() string {
	var lines []string
	for _, p := range e {
		lines = append(lines, p.String())
	}
	return strings.Join(lines, "\n")
}

// mostRepeats is how often a step is done that is still to be done afterwards.
const mostRepeats = 3

// Carry does what plan says until nothing is left, looking at the machines before each step, and
// returns what was seen last, and how many steps it took.
func (u *Up) Carry(ctx context.Context, hosts []string, world World, plan func(World) Todo) (World, int, error) {
	every, patience := u.Every, u.Patience
	if every == 0 {
		every = 500 * time.Millisecond
	}
	if patience == 0 {
		patience = 2 * time.Minute
	}
	var waiting Step
	var since time.Time
	done, total := map[string]int{}, 0
	upgraded := ""
	for {
		todo := plan(world)
		switch {
		case len(todo.Problems) > 0:
			return world, total, ProblemsError(todo.Problems)
		case len(todo.Steps) == 0:
			return world, total, nil
		}
		next := todo.Steps[:1]
		for _, s := range todo.Steps[1:] {
			if !next[0].Together || !s.Together || s.Verb != next[0].Verb {
				break
			}
			next = append(next, s)
		}
		if step := next[0]; step.Verb == Wait {
			if waiting.Verb != Wait || waiting.Host != step.Host {
				since = u.Now()
				u.Say(step.Host, step.Words)
			}
			if waiting = step; u.Now().Sub(since) > patience {
				return world, total, u.back(upgraded, fmt.Errorf("%s: %s: that has taken %v: \"journalctl -u skep\" there says more", step.Host, step.Words, patience))
			}
			if !cluster.Sleep(ctx, every) {
				return world, total, ctx.Err()
			}
		} else {
			waiting = Step{}
			for _, s := range next {
				key := s.Host + " " + string(s.Verb) + " " + s.Words
				if done[key]++; done[key] > mostRepeats {
					return world, total, u.back(upgraded, fmt.Errorf("%s: %s: it was done, and is still to be done", s.Host, s.Words))
				}
				if done[key] > 1 && !cluster.Sleep(ctx, every) {
					return world, total, ctx.Err()
				}
			}
			if next[0].Upgrade {
				upgraded = next[0].Host
			}
			err := u.perform(ctx, world, next)
			total += len(next)
			if err != nil {
				return world, total, u.back(upgraded, err)
			}
		}
		var err error
		if world, err = u.Look(ctx, hosts); err != nil {
			return world, total, err
		}
	}
}

// back adds to an error the way back to the binary of before.
func (u *Up) back(host string, err error) error {
	if host == "" || err == nil {
		return err
	}
	return fmt.Errorf("%w\nThe upgrade stops here; all others go on. Run this again to go on. The way back, on %s: mv %s %s && systemctl restart skep", err, host, formerPath, binaryPath)
}

// perform does steps of one kind at once.
func (u *Up) perform(ctx context.Context, w World, steps []Step) error {
	errs := make([]error, len(steps))
	var work sync.WaitGroup
	for i, s := range steps {
		u.Say(s.Host, s.Words)
		work.Go(func() {
			limit := stepLimit
			if s.Drain {
				limit += drainLimit
			}
			if err := within(ctx, limit, func(ctx context.Context) error { return u.do(ctx, w, s) }); err != nil {
				errs[i] = fmt.Errorf("%s: %s: %w", s.Host, s.Words, err)
			}
		})
	}
	work.Wait()
	return errors.Join(errs...)
}

// drainLimit is how long a node may take to be empty.
const drainLimit = 10 * time.Minute

const (
	// lookAtLimit is how long a machine may take to be looked at, and stageLimit to get the binary.
	lookAtLimit, stageLimit = time.Minute, 10 * time.Minute
	// stepLimit is how long a step may take, beside what a drain takes.
	stepLimit = 3 * time.Minute
)

// within bounds what something may take, and says so when it took longer.
func within(ctx context.Context, limit time.Duration, do func(context.Context) error) error {
	bounded, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := do(bounded)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return fmt.Errorf("it takes longer than %v", limit)
	}
	return err
}

// do does one step.
func (u *Up) do(ctx context.Context, w World, s Step) error {
	by := func(args ...string) error { return u.skep(ctx, s.By, nil, nil, args...) }
	on := func(args ...string) error { return u.skep(ctx, s.Host, nil, nil, args...) }
	switch s.Verb {
	case Install:
		return u.install(ctx, s.Host, w[s.Host].Skep)
	case Init:
		var said bytes.Buffer // It tells a token.
		return u.skep(ctx, s.Host, nil, &said, "swarm", "init", "--advertise-addr", s.Addr)
	case Join:
		return u.join(ctx, w, s)
	case Promote:
		return by("node", "promote", s.Node)
	case Demote:
		if s.Drain {
			if err := by("node", "drain", "--wait", "--timeout", drainLimit.String(), s.Node); err != nil {
				return err
			}
		}
		return by("node", "demote", s.Node)
	case Set:
		args := []string{"node", "update"}
		for _, l := range s.Labels {
			args = append(args, "--label-add", l)
		}
		for _, l := range s.Unlabel {
			args = append(args, "--label-rm", l)
		}
		if s.Availability != "" {
			args = append(args, "--availability", string(s.Availability))
		}
		return by(append(args, s.Node)...)
	case Leave:
		if s.By == "" || s.Node == "" {
			return on("swarm", "leave", "--force")
		}
		for _, args := range [][]string{{"node", "drain", "--wait", "--timeout", drainLimit.String(), s.Node}} {
			if err := by(args...); err != nil {
				return err
			}
		}
		if err := on("swarm", "leave"); err != nil {
			return err
		}
		return by("node", "rm", "--force", s.Node)
	case Forget:
		return by("node", "rm", "--force", s.Node)
	case Wipe:
		u.mu.Lock()
		tool := u.tool[s.Host]
		u.tool[s.Host] = ""
		u.mu.Unlock()
		err := u.Runner.Run(ctx, s.Host, Order{Verb: "wipe", Args: []string{tool}})
		if err == nil && !w[s.Host].Skep.Packaged {
			u.mu.Lock()
			defer u.mu.Unlock()
			u.wiped[s.Host] = true
		}
		return err
	}
	return fmt.Errorf("nobody knows how to %s", s.Verb)
}

func (u *Up) install(ctx context.Context, host string, is Skep) error {
	tool, unit := u.toolOn(host), "unit"
	if is.Unit == UnitByHand || is.Packaged {
		unit = "keep"
	}
	if is.Packaged {
		tool = packagedPath
	}
	err := u.Runner.Run(ctx, host, Order{Verb: "install", Args: []string{tool, unit}})
	if strings.HasPrefix(tool, stagedPrefix) {
		u.moved(host, "") // It may be either place.
	}
	return err
}

// skep runs the skep that a machine's look was taken with.
func (u *Up) skep(ctx context.Context, host string, in io.Reader, out io.Writer, args ...string) error {
	tool := u.toolOn(host)
	return u.Runner.Run(ctx, host, Order{Verb: "skep", Args: append([]string{tool}, args...), In: in, Out: out, Secret: in != nil || out != nil})
}

// join reads the token from the one and gives it to the other.
func (u *Up) join(ctx context.Context, w World, s Step) error {
	var token bytes.Buffer
	if err := u.skep(ctx, s.By, nil, &token, "swarm", "join-token", "-q", string(s.Role)); err != nil {
		return fmt.Errorf("ask %s for the token: %w", s.By, err)
	}
	args := []string{"swarm", "join", "--token-file", "-", "--advertise-addr", s.Addr}
	if s.Availability != "" {
		args = append(args, "--availability", string(s.Availability))
	}
	c := w[s.By].Cluster
	at := w[s.By].Node.Addr
	for _, m := range c.Status.Managers {
		if m.NodeID == w[s.By].Node.ID && m.Addr != "" {
			at = m.Addr
		}
	}
	return u.skep(ctx, s.Host, &token, nil, append(args, at)...)
}

// Show has a manager say how the cluster is.
func (u *Up) Show(ctx context.Context, w World, hosts []string, out io.Writer) error {
	for _, host := range hosts {
		if c := w[host].Cluster; c != nil && c.Error == "" {
			err := within(ctx, lookAtLimit, func(ctx context.Context) error {
				return u.Runner.Run(ctx, host, Order{Verb: "skep", Args: []string{u.toolOn(host), "cluster", "status"}, Out: out})
			})
			if f := (failure{}); errors.As(err, &f) && !f.lost {
				return nil // It has said what is unhealthy.
			}
			return err
		}
	}
	return nil
}
