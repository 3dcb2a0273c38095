package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"skep/cluster"
	"skep/cmd/skep/stack"
)

// simulated is a cluster of one node whose tasks are simulated, and says where its API is.
func simulated(t *testing.T) (host string) {
	t.Helper()
	addr := ownAddress(t)
	dir := t.TempDir()
	host = "unix://" + filepath.Join(dir, "sock")
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(os.Args[0], "daemon", "--driver", "simulate", "--init", "--advertise-addr", addr, "--listen-addr", addr,
		"--data-dir", filepath.Join(dir, "data"), "--runtime-dir", filepath.Join(dir, "run"), "-H", host)
	cmd.Env = []string{asCommand + "=1", "HOME=" + dir, "PATH=" + os.Getenv("PATH")}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		if text, err := os.ReadFile(log.Name()); err == nil && t.Failed() {
			t.Logf("the daemon says:\n%s", text)
		}
	})
	for begun := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		r := skep(t, []string{"SKEP_HOST=" + host}, "node", "ls", "--format", "{{.Status}}")
		if strings.Contains(r.stdout, "Ready") {
			return host
		}
		if time.Since(begun) > 30*time.Second {
			t.Fatalf("no node is ready: %+v", r)
		}
	}
}

// off is the end of a file whose services are on no network: a node alone on loopback makes none.
const off = "\nnetworks: {default: {external: true, name: none}}\n"

func TestStack(t *testing.T) {
	host := simulated(t)
	env := []string{"SKEP_HOST=" + host}
	file := filepath.Join(t.TempDir(), "shop.yml")
	// run deploys a text, or shows what that would do.
	run := func(text string, args ...string) result {
		t.Helper()
		write(t, file, "name: shop\n"+text+off)
		return skep(t, env, append([]string{"stack", args[0], "--resolve-image", "never", "-c", file}, args[1:]...)...)
	}
	want := func(r result, status int, stdout, stderr string) {
		t.Helper()
		if r.status != status || stdout != "*" && r.stdout != stdout || !strings.Contains(r.stderr, stderr) {
			t.Fatalf("status %d, want %d\n%s\nwant\n%s\nand\n%s\nwith %s", r.status, status, r.stdout, stdout, r.stderr, stderr)
		}
	}
	const web = `
services:
  web: {image: "web:%d", configs: [conf], deploy: {replicas: 2, update_config: {monitor: 1s}}}
configs:
  conf: {content: "%s"}
`
	made := "create    config shop_conf\ncreate    service shop_web\n"
	one := fmt.Sprintf(web, 1, "one")
	want(run(one, "diff"), 2, made, "")
	want(run(one, "deploy", "--dry-run"), 2, made, "")
	if r := skep(t, env, "stack", "ls", "-q"); strings.Contains(r.stdout, "shop") {
		t.Fatalf("a dry run deployed it: %+v", r)
	}
	want(run(one, "deploy", "--quiet"), 0, made, "")
	want(run(one, "diff"), 0, "Stack shop is as the file says.\n", "")
	want(run(one, "deploy", "--quiet"), 0, "Stack shop is as the file says.\n", "")

	// Other content is another config, and what was is found again.
	two := fmt.Sprintf(web, 1, "two")
	changed := "create    config shop_conf-2: its content is another one\nupdate    service shop_web (restarts tasks)\n" +
		"    - config shop_conf     GID 0, UID 0, mode 0444, name conf\n    + config shop_conf-2   GID 0, UID 0, mode 0444, name conf\n"
	want(run(two, "diff"), 2, changed, "")
	want(run(two, "deploy", "--quiet"), 0, changed, "")
	want(run(two, "diff"), 0, "Stack shop is as the file says.\n", "")
	want(run(one, "diff"), 2, "update    service shop_web (restarts tasks)\n    + config shop_conf     GID 0, UID 0, mode 0444, name conf\n    - config shop_conf-2   GID 0, UID 0, mode 0444, name conf\n", "")
	want(run(strings.Replace(two, "conf: {", "conf: {name: shop_conf, ", 1), "deploy"), 1, "*", "the file says its name")
	if r := skep(t, env, "service", "rollback", "--quiet", "shop_web"); r.status != 0 {
		t.Fatalf("back to the old config: %+v", r)
	}
	want(run(two, "deploy", "--quiet", "--prune-data"), 0, "*", "")
	if r := skep(t, env, "config", "ls", "--format", "{{.Name}}"); r.stdout != "shop.deploy-1\nshop.deploy-2\nshop.deploy-3\nshop_conf\nshop_conf-2\n" {
		t.Errorf("a config that a revision has: %+v", r)
	}

	var changes []stack.Change
	r := run(fmt.Sprintf(web, 2, "two"), "diff", "--json")
	if err := json.Unmarshal([]byte(r.stdout), &changes); err != nil || r.status != 2 {
		t.Fatalf("%v: %+v", err, r)
	}
	last := changes[len(changes)-1]
	if last.Name != "shop_web" || !last.RestartsTasks || len(last.Differences) != 2 || last.Differences[0].To != "web:2" {
		t.Errorf("%+v", last)
	}

	// What is exported changes nothing when it is deployed.
	exported := skep(t, env, "stack", "export", "shop")
	if exported.status != 0 || exported.stderr != "" || !strings.Contains(exported.stdout, "content: two") {
		t.Fatalf("%+v", exported)
	}
	if r := skepReading(t, exported.stdout, env, "stack", "diff", "--resolve-image", "never", "-c", "-"); r.status != 0 {
		t.Errorf("%+v\n%s", r, exported.stdout)
	}
	if r := skep(t, env, "service", "update", "--detach", "--no-resolve-image", "--hostname", "h", "--container-label-add", "a=b", "--credential-spec=", "--no-healthcheck", "shop_web"); r.status != 0 {
		t.Fatalf("%+v", r)
	}
	if r := skep(t, env, "stack", "export", "shop"); r.status != 0 || r.stderr != "" || !strings.Contains(r.stdout, "hostname: h") {
		t.Errorf("%+v", r)
	}
	if r := skep(t, env, "stack", "export", "none"); r.status != 1 || !strings.Contains(r.stderr, "there is no stack none") {
		t.Errorf("%+v", r)
	}
	want(run(two, "deploy", "--quiet"), 0, "*", "")

	// Back to how it was deployed, and forth.
	if r := skep(t, env, "stack", "rollback", "--dry-run", "shop", "1"); r.status != 2 || !strings.Contains(r.stdout, "- config shop_conf-2") {
		t.Errorf("%+v", r)
	}
	if r := skep(t, env, "stack", "rollback", "--quiet", "shop", "1"); r.status != 0 {
		t.Fatalf("%+v", r)
	}
	want(run(one, "diff"), 0, "Stack shop is as the file says.\n", "")
	if r := skep(t, env, "stack", "history", "shop"); r.status != 0 || !hasLine(strings.Join(strings.Fields(strings.Split(r.stdout, "\n")[1])[2:], " "), "1 back to deployment 1") {
		t.Errorf("%+v", r)
	}
	if r := skep(t, env, "stack", "rollback", "--quiet", "shop"); r.status != 0 {
		t.Fatalf("%+v", r)
	}
	want(run(two, "diff"), 0, "Stack shop is as the file says.\n", "")
	for says, args := range map[string][]string{"isn't remembered": {"shop", "99"}, `"x" won't do`: {"shop", "x"}, "no deployment of stack none": {"none"}} {
		if r := skep(t, env, append([]string{"stack", "rollback"}, args...)...); r.status != 1 || !strings.Contains(r.stderr, says) {
			t.Errorf("%v: %+v", args, r)
		}
	}

	// A config is rotated for all who have it, and rolled back.
	if r := skepReading(t, "three", env, "config", "rotate", "--quiet", "shop_conf", "-"); r.status != 0 || r.stdout != "shop_conf-3\nupdate    service shop_web\n" {
		t.Fatalf("%+v", r)
	}
	if r := skepReading(t, "three", env, "config", "rotate", "shop_conf-2", "-"); r.status != 0 || r.stdout != "shop_conf-3\n" || !strings.Contains(r.stderr, "No service had other content") {
		t.Errorf("again: %+v", r)
	}
	want(run(strings.Replace(two, "two", "three", 1), "diff"), 0, "Stack shop is as the file says.\n", "")
	if r := skepReading(t, "two", env, "config", "rotate", "--quiet", "--service-by-service", "shop_conf", "-"); r.status != 0 || !strings.HasPrefix(r.stdout, "shop_conf-2\nupdate    service shop_web\n") {
		t.Errorf("back: %+v", r)
	}
	if r := skepReading(t, "canary", env, "secret", "create", "pass", "-"); r.status != 0 {
		t.Fatalf("%+v", r)
	}
	if r := skep(t, env, "service", "update", "--detach", "--no-resolve-image", "--secret-add", "pass", "shop_web"); r.status != 0 {
		t.Fatalf("%+v", r)
	}
	if r := skepReading(t, "canary-2", env, "secret", "rotate", "-d", "pass", "-"); r.status != 0 || r.stdout != "pass-2\nupdate    service shop_web\n" || strings.Contains(r.stderr, "canary") {
		t.Errorf("%+v", r)
	}
	if r := skep(t, env, "secret", "rotate", "none", "/dev/null"); r.status != 1 || !strings.Contains(r.stderr, "none") {
		t.Errorf("%+v", r)
	}
	want(run(two, "deploy", "--quiet"), 0, "*", "")

	// docker's own command knows it.
	if _, err := exec.LookPath("docker"); err == nil {
		docker := func(args ...string) string {
			t.Helper()
			cmd := exec.Command("docker", append([]string{"-H", host}, args...)...)
			cmd.Env = []string{"HOME=" + t.TempDir(), "PATH=" + os.Getenv("PATH")}
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("docker %v: %v\n%s", args, err, out)
			}
			return string(out)
		}
		if got := docker("stack", "ls", "--format", "{{.Name}} {{.Services}}"); got != "shop 1\n" {
			t.Errorf("docker stack ls: %s", got)
		}
		if got := docker("stack", "services", "--format", "{{.Name}} {{.Replicas}} {{.Image}}", "shop"); got != "shop_web 2/2 web:1\n" {
			t.Errorf("docker stack services: %s", got)
		}
		if got := docker("stack", "ps", "--filter", "desired-state=running", "--format", "{{.Name}}", "shop"); len(strings.Fields(got)) != 2 {
			t.Errorf("docker stack ps: %s", got)
		}
	}

	// What ends as it was to is there; what fails is told, with its log.
	const ends = `
services:
  after: {image: "m:1", depends_on: {job: {condition: service_completed_successfully}}}
  job: {image: "m:1", deploy: {mode: replicated-job, replicas: 2, restart_policy: {condition: none}, labels: {skep.simulate.run-for: 1s}}}
  once: {image: "m:%[1]d", deploy: {restart_policy: {condition: none}, labels: {skep.simulate.run-for: 1s, skep.simulate.exit-code: "%[1]d"}}}
`
	if r := run(fmt.Sprintf(ends, 0), "deploy", "--prune"); r.status != 0 || !strings.Contains(r.stdout, "remove    service shop_web") || !strings.Contains(r.stdout, "shop_after: 0 of 1 tasks run: waits for") {
		t.Fatalf("%+v", r)
	}
	r = run(fmt.Sprintf(ends, 3), "deploy", "--quiet")
	for _, says := range []string{"these services don't run as they should: shop_once", "task: non-zero exit (3)", "exits with 3"} {
		if r.status != 1 || !strings.Contains(r.stderr, says) {
			t.Errorf("%q isn't in %+v", says, r)
		}
	}
	want(run(strings.Replace(fmt.Sprintf(ends, 3), "run-for: 1s", "run-for: 1h", 1), "deploy", "--quiet", "--timeout", "3s"), 1, "*", "don't run as they should")

	// A service of that name that somebody else made stays as it is.
	if r := skep(t, env, "service", "create", "--detach", "--no-resolve-image", "--network", "none", "--name", "shop_hand", "m:1"); r.status != 0 {
		t.Fatalf("%+v", r)
	}
	want(run("services: {hand: {image: m:1}}", "deploy"), 1, "*", "there is a service of that name that isn't the stack's")
	if r := skep(t, env, "stack", "rm", "--wait", "shop"); r.status != 0 {
		t.Fatalf("%+v", r)
	}
	if r := skep(t, env, "stack", "ls", "-q"); r.stdout != "" && strings.Contains(r.stdout, "shop") {
		t.Errorf("it is still there: %+v", r)
	}
	if r := skep(t, env, "config", "ls", "-q"); r.stdout != "" {
		t.Errorf("its configs are: %+v", r)
	}
}

// A registry is asked once about an image, and what it says is what is planned.
func TestStack_PinsImages(t *testing.T) {
	const digest = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	node := newFakeNode(t)
	for _, list := range []string{"networks", "secrets", "configs", "services"} {
		node.answer("GET /"+list, "[]")
	}
	node.answer("POST /skep/v1/services/plan", "[]")
	node.answer("GET /distribution/web:1/json", `{"Descriptor":{"digest":"`+digest+`"},"Platforms":[{"architecture":"amd64","os":"linux"}]}`)
	file := filepath.Join(t.TempDir(), "shop.yml")
	write(t, file, "services: {a: {image: web:1}, b: {image: web:1}, c: {image: none:1}}")
	r := skep(t, []string{"SKEP_HOST=" + node.url}, "stack", "diff", "-c", file, "shop")
	if r.status != 2 || !strings.Contains(r.stderr, "image none:1: no registry tells its digest") {
		t.Fatalf("%+v", r)
	}
	if n := len(node.asked("/distribution/web:1/json")); n != 1 {
		t.Errorf("the registry was asked %d times", n)
	}
	var asked cluster.PlanRequest
	if err := json.Unmarshal([]byte(node.last()), &asked); err != nil || len(asked.Services) != 3 {
		t.Fatalf("%v: %s", err, node.last())
	}
	for i, image := range []string{"web:1@" + digest, "web:1@" + digest, "none:1"} {
		if task := asked.Services[i].TaskTemplate; task.ContainerSpec.Image != image || (len(task.Placement.Platforms) == 1) != (i < 2) {
			t.Errorf("%s runs %s on %v", asked.Services[i].Name, task.ContainerSpec.Image, task.Placement.Platforms)
		}
	}
}

func TestStackConfig(t *testing.T) {
	file := filepath.Join(t.TempDir(), "shop.yml")
	write(t, file, "services: {web: {image: \"web:${TAG}\", command: \"$$HOME\"}}")
	r := skep(t, []string{"TAG=7"}, "stack", "config", "-c", file)
	if r.status != 0 || r.stdout != "services:\n    web:\n        command: $$HOME\n        image: web:7\n" {
		t.Errorf("%+v", r)
	}
	if r := skep(t, nil, "stack", "config", "--skip-interpolation", "-c", file); r.status != 0 || !strings.Contains(r.stdout, "web:${TAG}") {
		t.Errorf("%+v", r)
	}
}

func TestStack_Refuses(t *testing.T) {
	node := newFakeNode(t)
	file := filepath.Join(t.TempDir(), "shop.yml")
	write(t, file, "services: {web: {image: web, privileged: true}}")
	for _, c := range []struct {
		says string
		args []string
	}{
		{"name the stack", []string{"-c", file}},
		{"name a compose file", []string{"shop"}},
		{"can't be the name of a stack", []string{"-c", file, "a b"}},
		{"--strict: the file has 1 warning", []string{"-c", file, "--strict", "shop"}},
		{"label the service (deploy.labels) skep.host.privileged", []string{"-c", file, "--strict", "shop"}},
		{"none of always, changed and never", []string{"-c", file, "--resolve-image", "maybe", "shop"}},
		{"requires at most 1 argument", []string{"-c", file, "shop", "two"}},
	} {
		for _, command := range []string{"diff", "deploy"} {
			if r := skep(t, []string{"SKEP_HOST=" + node.url}, append([]string{"stack", command}, c.args...)...); r.status != 1 || !strings.Contains(r.stderr, c.says) {
				t.Errorf("%s %v: %+v", command, c.args, r)
			}
		}
	}
}
