package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"skep/cluster"
)

const (
	// rackGroup is the group of the hosts' sockets, and someoneUID who is in it, and in no other.
	rackGroup  = 4711
	someoneUID = 65534
)

// someone is somebody at a host who has skep's command, and isn't root.
type someone struct {
	*rackPart
	host *rackHost
	env  []string
	// file is what the command reads from its standard input.
	file string
}

// inGroup gives one a way to the host's socket, and to the command.
func (p *rackPart) inGroup(h *rackHost) *someone {
	p.Helper()
	for _, dir := range []string{p.dir, h.dir, h.node.dir, p.bin, filepath.Dir(p.bin)} {
		if err := os.Chmod(dir, 0o711); err != nil {
			p.Fatal(err)
		}
	}
	return &someone{rackPart: p, host: h}
}

// with is the same one, who has variables set.
func (o *someone) with(env ...string) *someone {
	other := *o
	other.env = append(append([]string{}, o.env...), env...)
	return &other
}

// reading is the same one, whose commands read a file.
func (o *someone) reading(file string) *someone {
	other := *o
	other.file = file
	return &other
}

// begins starts a command.
func (o *someone) begins(args ...string) *piped {
	o.Helper()
	run := &piped{cmd: exec.Command(filepath.Join(o.bin, "skep"), args...)}
	run.cmd.Env = append([]string{"PATH=/usr/bin:/bin", "HOME=/nowhere", "SKEP_HOST=" + o.host.node.socket()}, o.env...)
	run.cmd.Dir = "/"
	run.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: someoneUID, Gid: rackGroup}}
	run.cmd.Stdout = &run.out
	run.cmd.Stdin = strings.NewReader(o.file)
	if err := run.begin(o.host.in); err != nil {
		o.Fatal(err)
	}
	return run
}

// run runs a command, and gives what it printed, its complaints last, and its status.
func (o *someone) run(args ...string) (string, int) {
	o.Helper()
	ctx, cancel := context.WithTimeout(o.Context(), time.Minute)
	defer cancel()
	run := o.begins(args...)
	_, _ = run.wait(ctx) // The status says it.
	return run.out.String() + run.err.String(), run.cmd.ProcessState.ExitCode()
}

// skep runs a command that must end with a status and print the parts, and returns what it printed.
func (o *someone) skep(status int, parts []string, args ...string) string {
	o.Helper()
	began := time.Now()
	out, got := o.run(args...)
	o.Logf("skep %s: %d after %s", strings.Join(args, " "), got, seconds(time.Since(began)))
	if got != status {
		o.Fatalf("skep %s ends with status %d, want %d:\n%s", strings.Join(args, " "), got, status, out)
	}
	for _, part := range parts {
		if !strings.Contains(out, part) {
			o.Errorf("skep %s prints no %q:\n%s", strings.Join(args, " "), part, out)
		}
	}
	return strings.TrimSpace(out)
}

// seenStarts are when containers of services were started first and last, and when the last of each was healthy first.
type seenStarts struct{ first, last, healthy time.Time }

// starts is what the engines tell of the containers of services since then.
func (p *rackPart) startsSince(since time.Time) map[string]seenStarts {
	p.Helper()
	all := map[string]seenStarts{}
	for i, h := range p.hosts {
		out, err := p.engineOn(i+1).run("events", "--since", fmt.Sprint(since.Unix()), "--until", fmt.Sprint(time.Now().Unix()+1),
			"--filter", "type=container", "--filter", "event=start", "--filter", "event=health_status", "--format", "{{json .}}")
		if err != nil {
			p.Fatalf("events of %s: %v\n%s", h.name, err, out)
		}
		healthy := map[string]bool{}
		for line := range strings.Lines(out) {
			var e struct {
				Status, ID string
				Actor      struct{ Attributes map[string]string }
				TimeNano   int64
			}
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				p.Fatalf("%v: %s", err, line)
			}
			name, at := e.Actor.Attributes["com.docker.swarm.service.name"], time.Unix(0, e.TimeNano)
			s := all[name]
			switch {
			case e.Status == "start":
				if s.first.IsZero() || at.Before(s.first) {
					s.first = at
				}
				if at.After(s.last) {
					s.last = at
				}
			case e.Status == "health_status: healthy" && !healthy[e.ID]:
				healthy[e.ID] = true
				if at.After(s.healthy) {
					s.healthy = at
				}
			}
			all[name] = s
		}
	}
	return all
}

// inOrder wants the containers of a service to have started when all those of another were healthy.
func (p *rackPart) inOrder(since time.Time, services ...string) {
	p.Helper()
	all := p.startsSince(since)
	for i, name := range services[1:] {
		before := all[services[i]]
		if first := all[name].first; before.healthy.IsZero() || first.IsZero() || first.Before(before.healthy) {
			p.Errorf("%s started %s after %s was healthy: %+v", name, first.Sub(before.healthy), services[i], all)
		}
	}
}

// onlySeats are the containers of a service when those of before are gone, which go on until their clients have left.
func (p *rackPart) onlySeats(service string, count int) (seats []*seat) {
	p.Helper()
	p.eventually(fmt.Sprintf("%d containers of %s", count, service), 30*time.Second, func(context.Context) error {
		if seats = p.seats(service); len(seats) != count {
			return fmt.Errorf("there are %d", len(seats))
		}
		return nil
	})
	return seats
}

// noneFailed ends traffic, of which no request may have failed.
func (p *rackPart) noneFailed(t *traffic) {
	p.Helper()
	o := t.end()
	if o.Failed > 0 || o.Requests == 0 {
		p.Errorf("%d of %d requests failed, the first: %+v", o.Failed, o.Requests, o.Failures[:min(3, len(o.Failures))])
	}
}

// playTrust deploys a stack by skep's own command, as somebody who isn't root, and goes through what becomes of one:
// another deployment, a new secret, an update that fails, the way back.
func playTrust(p *rackPart) {
	file, err := os.ReadFile(filepath.Join("testdata", "trust.yml"))
	if err != nil {
		p.Fatal(err)
	}
	me := p.inGroup(p.hosts[1]).with("KEY=one").reading(string(file))
	deploy := []string{"stack", "deploy", "-c", "-", "--resolve-image", "never"}
	but := func(more ...string) []string { return append(append([]string{}, deploy...), more...) }
	nothing := "Stack trust is as the file says."

	p.scheduled(me)
	will := []string{"create    network trust_default", "create    secret trust_key", "create    service trust_db", "create    service trust_api", "create    service trust_web"}
	me.skep(2, will, "stack", "diff", "-c", "-", "--resolve-image", "never")
	me.skep(2, will, but("--dry-run")...)
	if out := p.docker("stack", "ls", "--format", "{{.Name}}"); out != "" {
		p.Errorf("a dry run made stack %s", out)
	}
	began := time.Now()
	me.skep(0, append(will, "trust_web: 2 of 2 tasks run"), but("--message", "the first")...)
	p.inOrder(began, "trust_db", "trust_api", "trust_web")
	me.skep(0, []string{nothing}, deploy...)

	t := p.calling(8099, p.hosts...)
	began = time.Now()
	me = me.with("WEB=2")
	me.skep(2, []string{"update    service trust_web (restarts tasks)", "guest:1", "guest:2"}, but("--dry-run")...)
	me.skep(0, []string{"update    service trust_web", "skep.update.pause-after"}, but("--message", "another page")...)
	versions := func() string {
		return p.docker("service", "ps", "--filter", "desired-state=running", "--format", "{{.Image}}", "trust_web")
	}
	if n := strings.Count(versions(), "guest:2"); n != 1 {
		p.Errorf("paused after 1 task, web is\n%s", versions())
	}
	me.skep(0, nil, "service", "resume", "trust_web")
	if n := strings.Count(versions(), "guest:2"); n != 2 {
		p.Errorf("resumed, web is\n%s", versions())
	}

	// Another secret: first the API has it, then the page, of which the first waits for somebody.
	began = time.Now()
	me.reading("two").skep(0, []string{"trust_key-2", "update    service trust_api", "update    service trust_web"}, "secret", "rotate", "trust_key", "-")
	me.skep(0, nil, "service", "resume", "--quiet", "trust_web")
	for _, service := range []string{"trust_api", "trust_web"} {
		for _, s := range p.onlySeats(service, 2) {
			if got := s.read("/run/secrets/key"); got != "two" {
				p.Errorf("the secret of %s is %q", s.task, got)
			}
		}
	}
	me = me.with("KEY=two")
	me.skep(0, []string{nothing}, deploy...)

	out := me.with("API=work 0s 7").skep(1, []string{"update    service trust_api", "it was rolled back", "non-zero exit (7)"}, but("--message", "a broken API")...)
	if !strings.Contains(out, "these services don't run as they should: trust_api") {
		p.Errorf("a broken update says\n%s", out)
	}
	history := me.skep(0, nil, "stack", "history", "trust")
	if !regexp.MustCompile(`(?s)\n3 .*a broken API\n2 .*another page\n1 .*the first$`).MatchString(history) {
		p.Errorf("the history is\n%s", history)
	}
	me.skep(0, []string{nothing}, deploy...)
	p.noneFailed(t)

	export := me.skep(0, nil, "stack", "export", "trust")
	me.reading(export).skep(0, []string{nothing}, deploy...)
	me.skep(0, []string{"update    service trust_web"}, "stack", "rollback", "trust", "1")
	had := map[string]int{}
	for _, s := range p.onlySeats("trust_web", 2) {
		had[s.read("/run/secrets/key")]++
	}
	if n := strings.Count(versions(), "guest:1"); n != 1 || had["one"] == 0 {
		p.Errorf("when a task is as deployed first, the tasks have these secrets: %v, and are\n%s", had, versions())
	}
	p.ranByItself(me)
	me.skep(0, nil, "stack", "rm", "--wait", "trust")
	p.told(me, []string{
		"POST /secrets/create  secret trust_key new→", "POST /services/create  service trust_db new→", "POST /services/{id}/update  service trust_api ",
		"POST /skep/v1/services/{id}/resume  service trust_web  done", "POST /skep/v1/jobs/{id}/run  service job ", "DELETE /services/{id}  service trust_web ",
	})
}

// told wants the audit log to have requests of that somebody, done.
func (p *rackPart) told(by *someone, requests []string) {
	p.Helper()
	who := fmt.Sprintf("nobody (uid %d on %s, pid ", someoneUID, by.host.name)
	out := by.skep(0, nil, "cluster", "audit")
	for _, request := range requests {
		found := false
		for line := range strings.Lines(out) {
			found = found || strings.Contains(line, who) && strings.Contains(line, request) && strings.Contains(line, " done (20")
		}
		if !found {
			p.Errorf("the audit log has no %q of %s:\n%s", request, who, out)
		}
	}
}

// job is what the command says of a job.
func (o *someone) job(name string) (j cluster.JobState, _ error) {
	o.Helper()
	out, status := o.run("job", "ls", "--json")
	var all []cluster.JobState
	if err := json.Unmarshal([]byte(out), &all); status != 0 || err != nil {
		return j, fmt.Errorf("%d, %v: %s", status, err, out)
	}
	for _, j = range all {
		if j.Name == name {
			return j, nil
		}
	}
	return j, errors.New("there is no such job: " + out)
}

// scheduled makes a job that is due each minute, and has others run by hand meanwhile.
func (p *rackPart) scheduled(me *someone) {
	p.Helper()
	create := func(name string, args ...string) {
		p.Helper()
		command := []string{"service", "create", "--detach", "--quiet", "--no-resolve-image", "--mode", "replicated-job", "--restart-condition", "none",
			"--stop-grace-period", "5s", "--name", name}
		me.skep(0, nil, append(append(append(command, before(args)...), guestImage(1)), after(args)...)...)
	}
	create("each", "--label", "skep.schedule=* * * * *", "--", "work", "100ms")
	create("job", "--label", "skep.schedule=0 0 1 1 *", "--label", "skep.schedule.keep=2", "--", "work", "100ms")
	var run uint64
	for range 3 {
		me.skep(0, nil, "job", "run", "job")
		p.eventually("the job to end", 20*time.Second, func(context.Context) error {
			j, err := me.job("job")
			if err == nil && (j.Outcome != "1 completed" || j.Run <= run) {
				return fmt.Errorf("%+v", j)
			}
			run = j.Run
			return err
		})
	}
	p.eventually("two runs to be remembered", 10*time.Second, func(context.Context) error {
		if out, status := me.run("service", "history", "job"); status != 0 || strings.Count(out, "\n") != 3 {
			return errors.New(out)
		}
		return nil
	})

	create("long", "--label", "skep.schedule=0 0 1 1 *", "--label", "skep.schedule.concurrency=replace", "--", "sleep")
	var last string
	for range 2 {
		me.skep(0, nil, "job", "run", "long")
		p.eventually("the one run", 20*time.Second, func(context.Context) error {
			switch seats := p.seats("long"); {
			case len(seats) != 1:
				return fmt.Errorf("there are %d containers", len(seats))
			case seats[0].task == last:
				return errors.New("it is the last run's")
			default:
				last = seats[0].task
				return nil
			}
		})
	}
	create("once", "--label", "skep.schedule=0 0 1 1 *", "--", "sleep")
	me.skep(0, nil, "job", "run", "once")
	me.skep(1, []string{"job once is running"}, "job", "run", "once")
	p.removed("long", "once")
}

// ranByItself waits until the job of each minute did so.
func (p *rackPart) ranByItself(me *someone) {
	p.Helper()
	p.eventually("a job to run by its schedule", 75*time.Second, func(context.Context) error {
		j, err := me.job("each")
		if err == nil && (j.Outcome != "1 completed" || j.Due.IsZero() || j.Began.Sub(j.Due) > 5*time.Second) {
			err = fmt.Errorf("%+v", j)
		}
		return err
	})
	p.removed("each", "job")
}
