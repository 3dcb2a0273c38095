package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/registry"
	"github.com/docker/docker/api/types/swarm"
	"golang.org/x/crypto/bcrypt"
)

// startRegistry runs a registry on a free port of this machine and returns its
// address, which is what images' names begin with. With a password it wants that of
// the user lab.
func startRegistry(b *solo, password string) string {
	b.Helper()
	dir := b.TempDir()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	address := listener.Addr().String()
	listener.Close()
	config := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: %q}\n", dir, address)
	if password != "" {
		hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
		if err != nil {
			b.Fatal(err)
		}
		users := filepath.Join(dir, "users")
		if err := os.WriteFile(users, []byte("lab:"+string(hash)+"\n"), 0o600); err != nil {
			b.Fatal(err)
		}
		config += fmt.Sprintf("auth: {htpasswd: {realm: lab, path: %s}}\n", users)
	}
	file := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		b.Fatal(err)
	}
	server := &process{name: "registry", logFile: filepath.Join(dir, "log")}
	if err := server.run("docker-registry", "serve", file); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(server.kill)
	if err := until(b.Context(), 20*time.Second, "the registry to listen", func(context.Context) error {
		if err := server.alive(); err != nil {
			return err
		}
		conn, err := net.DialTimeout("tcp", address, time.Second)
		if err == nil {
			conn.Close()
		}
		return err
	}); err != nil {
		b.Fatal(err)
	}
	return address
}

var pushedDigest = regexp.MustCompile(`digest: (sha256:[0-9a-f]{64})`)

// push builds an image that no other is like, pushes it, and takes it away from the
// engine, so that whoever wants it has to pull it. It returns its digest.
func (b *solo) push(ref string) string { return b.pushOf(ref, "/timecheck") }

// pushOf is push of an image that runs the program; there is only /timecheck in it.
func (b *solo) pushOf(ref, program string) string {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), patience)
	defer cancel()
	dockerfile := fmt.Sprintf("FROM scratch\nCOPY timecheck /timecheck\nENV TIMECHECK_VERSION=%d\nENTRYPOINT [%q]\n", time.Now().UnixNano(), program)
	if err := buildImage(ctx, b.cluster.engine, ref, dockerfile, filepath.Join(b.cluster.bin, "timecheck")); err != nil {
		b.Fatal(err)
	}
	match := pushedDigest.FindStringSubmatch(b.docker("push", ref))
	if match == nil {
		b.Fatalf("push %s tells no digest", ref)
	}
	engine, err := connect(b.cluster.engine)
	if err != nil {
		b.Fatal(err)
	}
	defer engine.Close()
	made, err := engine.ImageInspect(ctx, ref)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := engine.ImageRemove(ctx, made.ID, image.RemoveOptions{Force: true, PruneChildren: true}); err != nil {
		b.Fatal(err)
	}
	b.images = append(b.images, made.ID)
	return match[1]
}

// serviceImage is what a service's spec says of its image.
func (b *solo) serviceImage(name string) string {
	b.Helper()
	return b.docker("service", "inspect", "-f", "{{.Spec.TaskTemplate.ContainerSpec.Image}}", name)
}

// running waits until a service's task runs what its spec says.
func (b *solo) running(name string) {
	b.Helper()
	b.eventually(b.serviceImage(name)+" Running", "service", "ps", "--no-trunc", "--filter", "desired-state=running", "--format", "{{.Image}} {{.CurrentState}}", name)
}

// rejected waits until a service's task is rejected with the words.
func (b *solo) rejected(words, name string) {
	b.Helper()
	b.eventually(words, "service", "ps", "--no-trunc", "--format", "{{.CurrentState}} {{.Error}}", name)
}

// TestRegistry_PinsImages checks that a service's image is resolved to the registry's
// digest, once, and that nothing but another image changes it.
func TestRegistry_PinsImages(t *testing.T) {
	b := newSolo(t, "docker-registry")
	app := startRegistry(b, "") + "/lab/app:1"
	first := b.push(app)
	b.docker("service", "create", "-d", "--name", "web", "--restart-delay", "300ms", "--update-monitor", "50ms", app)
	if got := b.serviceImage("web"); got != app+"@"+first {
		t.Fatalf("the image is stored as %s, want %s@%s", got, app, first)
	}
	place{"Spec/TaskTemplate/Placement/Platforms", `[{"Architecture":"amd64","OS":"linux"}]`}.check(t, "create", "the service", b.object("service", "inspect", "web"))
	b.running("web")
	place{"Config/Image", `"` + app + "@" + first + `"`}.check(t, "create", "the container", b.container("web", "--filter", "desired-state=running"))

	second := b.push(app)
	b.docker("service", "update", "-d", "--force", "web")
	b.running("web")
	if got := b.serviceImage("web"); got != app+"@"+first {
		t.Errorf("an update without --image makes the image %s, want %s@%s", got, app, first)
	}
	b.docker("service", "update", "-d", "--image", app, "web")
	if got := b.serviceImage("web"); got != app+"@"+second {
		t.Errorf("an update makes the image %s, want %s@%s", got, app, second)
	}
	b.running("web")
	b.docker("service", "update", "-d", "--no-resolve-image", "--image", app, "web")
	if got := b.serviceImage("web"); got != app {
		t.Errorf("an update with --no-resolve-image makes the image %s, want %s", got, app)
	}
	b.running("web")

	none := strings.TrimSuffix(app, "1") + "none"
	output := b.docker("service", "create", "-d", "--name", "none", none)
	if !strings.Contains(output, "could not be accessed on a registry to record") {
		t.Errorf("an image that isn't there: %s", output)
	}
	b.rejected(fmt.Sprintf("No such image: %s (pull: manifest for %s not found: manifest unknown: manifest unknown)", none, none), "none")
}

// TestRegistry_WithCredentials checks that credentials reach the agent that pulls, as
// long as a service is updated, and nobody else.
func TestRegistry_WithCredentials(t *testing.T) {
	b := newSolo(t, "docker-registry")
	const password = "canary-of-the-registry"
	address := startRegistry(b, password)
	app := address + "/lab/app"
	if output, err := b.run("login", "-u", "lab", "-p", "wrong", address); err == nil || !strings.Contains(output, "401 Unauthorized") {
		t.Errorf("login with a wrong password: %v: %s", err, output)
	}
	b.docker("login", "-u", "lab", "-p", password, address)
	digest := b.push(app + ":1")
	b.push(app + ":2")
	b.push(app + ":3")

	b.docker("service", "create", "-d", "--name", "stranger", "--restart-delay", "300ms", app+":1")
	b.rejected("no basic auth credentials", "stranger")
	// Credentials alone are an update for what could not pull, and for nothing else.
	b.docker("service", "update", "-d", "--with-registry-auth", "stranger")
	b.running("stranger")
	before := b.docker("service", "ps", "-q", "--filter", "desired-state=running", "stranger")
	b.docker("service", "update", "-d", "--with-registry-auth", "stranger")
	b.running("stranger")
	if after := b.docker("service", "ps", "-q", "--filter", "desired-state=running", "stranger"); after != before {
		t.Errorf("credentials alone replaced the task %s by %s", before, after)
	}
	b.docker("service", "rm", "stranger")

	b.docker("service", "create", "-d", "--name", "web", "--restart-delay", "300ms", "--update-monitor", "50ms", "--with-registry-auth", app+":1")
	if got := b.serviceImage("web"); got != app+":1@"+digest {
		t.Errorf("the image is stored as %s, want %s:1@%s", got, app, digest)
	}
	b.running("web")
	b.docker("service", "update", "-d", "--image", app+":2", "--no-resolve-image", "web")
	b.running("web") // with the credentials of before

	api := b.cluster.nodes[0].api
	update := func(tag string, options swarm.ServiceUpdateOptions) {
		t.Helper()
		service, _, err := api.ServiceInspectWithRaw(t.Context(), "web", swarm.ServiceInspectOptions{})
		if err != nil {
			t.Fatal(err)
		}
		service.Spec.TaskTemplate.ContainerSpec.Image = app + tag
		if _, err := api.ServiceUpdate(t.Context(), service.ID, service.Version, service.Spec, options); err != nil {
			t.Fatal(err)
		}
	}
	wrong, err := registry.EncodeAuthConfig(registry.AuthConfig{Username: "lab", Password: "wrong", ServerAddress: address})
	if err != nil {
		t.Fatal(err)
	}
	update(":3", swarm.ServiceUpdateOptions{EncodedRegistryAuth: wrong})
	b.rejected("unauthorized: authentication required", "web")
	update(":3", swarm.ServiceUpdateOptions{RegistryAuthFrom: swarm.RegistryAuthFromPreviousSpec})
	b.running("web")

	// From now on the current spec has the right credentials, and the previous the wrong ones.
	b.docker("service", "update", "-d", "--with-registry-auth", "--image", app+":1", "web")
	b.running("web")
	b.docker("service", "update", "-d", "--rollback", "web")
	b.running("web")

	b.push(app + ":4")
	update(":4", swarm.ServiceUpdateOptions{RegistryAuthFrom: swarm.RegistryAuthFromSpec})
	b.running("web")

	// Neither an answer, nor the log, nor a file of the node has the password.
	var answers bytes.Buffer
	service, raw, err := api.ServiceInspectWithRaw(t.Context(), "web", swarm.ServiceInspectOptions{InsertDefaults: true})
	if err != nil {
		t.Fatal(err)
	}
	answers.Write(raw)
	tasks, err := api.TaskList(t.Context(), swarm.TaskListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := json.NewEncoder(&answers).Encode(tasks); err != nil {
		t.Fatal(err)
	}
	answers.WriteString(b.docker("inspect", "--type", "task", tasks[0].ID))
	answers.WriteString(b.docker("inspect", field(b.container("web", "--filter", "desired-state=running"), "Id").(string)))
	answers.WriteString(b.docker("events", "--since", "0", "--until", fmt.Sprint(time.Now().Unix()+1), "--filter", "type=service"))
	if !strings.Contains(answers.String(), service.ID) {
		t.Fatal("the answers have no service")
	}
	if at := leak(answers.Bytes(), password); at != "" {
		t.Errorf("an answer of the API has the password: %s", at)
	}
	files := 0
	err = filepath.WalkDir(b.cluster.dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if os.IsNotExist(err) {
			return nil
		}
		if files++; leak(data, password) != "" {
			t.Errorf("%s has the password: %s", path, leak(data, password))
		}
		return err
	})
	if err != nil || files < 4 {
		t.Errorf("looked into %d files: %v", files, err)
	}
}

// TestRegistry_ImageWatch moves a tag: the service follows, but not to an image that doesn't run, nor back to that.
func TestRegistry_ImageWatch(t *testing.T) {
	b := newSolo(t, "docker-registry")
	app := startRegistry(b, "") + "/lab/app:1"
	const password = "canary-of-the-watch"
	closed := startRegistry(b, password)
	why := func(name string) string {
		t.Helper()
		out, err := exec.Command(filepath.Join(b.cluster.bin, "skep"), "--host", b.cluster.nodes[0].socket(), "service", "why", name).CombinedOutput()
		if err != nil {
			t.Fatalf("why %s: %v: %s", name, err, out)
		}
		return string(out)
	}
	wait := func(what string, condition func() bool) {
		t.Helper()
		if err := until(t.Context(), 90*time.Second, what, func(context.Context) error {
			if !condition() {
				return fmt.Errorf("not yet: %s", why("web"))
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	runs := func(digest string) {
		t.Helper()
		wait("the service is of "+digest, func() bool { return b.serviceImage("web") == app+"@"+digest })
		b.running("web")
	}
	first := b.push(app)
	b.docker("service", "create", "-d", "--name", "web", "--label", "skep.image.watch=30s", "--restart-delay", "300ms", "--update-monitor", "1s", "--update-failure-action", "rollback", app)
	wrong, err := registry.EncodeAuthConfig(registry.AuthConfig{Username: "lab", Password: password + "-not", ServerAddress: closed})
	if err != nil {
		t.Fatal(err)
	}
	none := uint64(0)
	if _, err := b.cluster.nodes[0].api.ServiceCreate(t.Context(), swarm.ServiceSpec{
		Annotations:  swarm.Annotations{Name: "closed", Labels: map[string]string{"skep.image.watch": "30s"}},
		TaskTemplate: swarm.TaskSpec{ContainerSpec: &swarm.ContainerSpec{Image: closed + "/lab/app:1"}},
		Mode:         swarm.ServiceMode{Replicated: &swarm.ReplicatedService{Replicas: &none}},
	}, swarm.ServiceCreateOptions{EncodedRegistryAuth: wrong}); err != nil {
		t.Fatal(err)
	}
	runs(first)
	second := b.push(app)
	runs(second)
	broken := b.pushOf(app, "/none")
	wait("the broken image is rolled back", func() bool {
		return strings.Contains(why("web"), "the service was taken back from that") && b.serviceImage("web") == app+"@"+second
	})
	b.eventually("rollback_completed", "service", "inspect", "-f", "{{.UpdateStatus.State}}", "web")
	version := b.docker("service", "inspect", "-f", "{{.Version.Index}}", "web")
	b.running("web")
	time.Sleep(45 * time.Second) // The registry is asked at least once more.
	if now := b.docker("service", "inspect", "-f", "{{.Version.Index}}", "web"); now != version || !strings.Contains(why("web"), broken) {
		t.Errorf("what was rolled back was tried again: version %s, then %s: %s", version, now, why("web"))
	}
	fourth := b.push(app)
	runs(fourth)

	said := why("closed")
	if !strings.Contains(said, "unauthorized") {
		t.Errorf("a wrong password: %s", said)
	}
	log, err := os.ReadFile(b.cluster.nodes[0].logFile)
	if err != nil || !strings.Contains(string(log), "a registry doesn't tell which digest a tag names") {
		t.Errorf("the log doesn't say that a registry refuses: %v", err)
	}
	if at := leak(append(log, said...), password); at != "" {
		t.Errorf("the password is told: %s", at)
	}
	events := b.docker("events", "--since", "0", "--until", fmt.Sprint(time.Now().Unix()+1), "--filter", "type=service", "--filter", "event=update")
	for _, digest := range []string{second, broken, fourth} {
		if !strings.Contains(events, "image.new="+app+"@"+digest) {
			t.Errorf("no event of %s in %s", digest, events)
		}
	}
	out, err := exec.Command(filepath.Join(b.cluster.bin, "skep"), "--host", b.cluster.nodes[0].socket(), "service", "history", "web").CombinedOutput()
	if err != nil || strings.Count(string(out), "image moved") != 3 {
		t.Errorf("the history: %v: %s", err, out)
	}
}

// leak finds a password in data, as it is or as part of what is coded in base64, and
// returns what stands around it.
func leak(data []byte, password string) string {
	forms := []string{password}
	for skip := range 3 {
		// What the first and the last characters are depends on the neighbours.
		coded := base64.RawURLEncoding.EncodeToString([]byte(strings.Repeat("x", skip) + password))
		forms = append(forms, coded[2*skip:len(coded)-2])
	}
	for _, form := range forms {
		if at := bytes.Index(data, []byte(form)); at >= 0 {
			return string(data[max(0, at-40):min(len(data), at+40)])
		}
	}
	return ""
}

func TestLeak(t *testing.T) {
	for _, text := range []string{"a", "ab", "abc", `{"username":"lab","password":"`} {
		coded := base64.URLEncoding.EncodeToString([]byte(text + "canary-of-it" + text))
		if leak([]byte(coded), "canary-of-it") == "" {
			t.Errorf("the password isn't found in %s", coded)
		}
		if leak([]byte(coded), "another-bird") != "" {
			t.Errorf("a password is found in %s that isn't there", coded)
		}
	}
}
