package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/versions"
)

// solo is one node with the real engine, and Docker's command to speak to it.
type solo struct {
	console
	cluster *processes
	images  []string
	volumes []string
}

// newSolo starts a node that is a cluster by itself, for a test that needs the
// programs too. After the test nothing of it is left.
func newSolo(t *testing.T, programs ...string) *solo {
	t.Helper()
	if testing.Short() {
		t.Skip("needs an engine and takes a while")
	}
	needDocker(t)
	for _, program := range programs {
		needProgram(t, program)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	l := lab{bin: binaries(t), engine: defaultEngine}
	cluster, err := newProcesses(ctx, l, "docker", 1)
	if err != nil {
		t.Fatal(err)
	}
	b := &solo{console: console{t, cluster.nodes[0].socket(), t.TempDir()}, cluster: cluster}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the log of the node ends:\n%s", cluster.nodes[0].lastLog())
		}
		if err := errors.Join(cluster.close(), b.removeImages()); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	if err := cluster.form(ctx, 1); err != nil {
		t.Fatal(err)
	}
	return b
}

// removeImages removes the images and volumes that the test made, once no container
// uses them.
func (b *solo) removeImages() error {
	engine, err := connect(b.cluster.engine)
	if err != nil {
		return err
	}
	defer engine.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var errs []error
	for _, name := range b.images {
		if _, err := engine.ImageRemove(ctx, name, image.RemoveOptions{Force: true, PruneChildren: true}); !cerrdefs.IsNotFound(err) {
			errs = append(errs, err)
		}
	}
	for _, name := range b.volumes {
		errs = append(errs, engine.VolumeRemove(ctx, name, true))
	}
	return errors.Join(errs...)
}

// engineBefore tells whether the engine's API is older than version.
func (b *solo) engineBefore(version string) bool {
	b.Helper()
	engine, err := connect(b.cluster.engine)
	if err != nil {
		b.Fatal(err)
	}
	defer engine.Close()
	info, err := engine.ServerVersion(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	return versions.LessThan(info.APIVersion, version)
}

// field follows a path such as Spec/Labels/x or Mounts/[Target=|t]/Type, where | is a
// slash, through what was decoded from JSON. What isn't there is nil.
func field(v any, path string) any {
	for _, name := range strings.Split(path, "/") {
		switch at := v.(type) {
		case map[string]any:
			v = at[name]
		case []any:
			key, value, _ := strings.Cut(strings.Trim(name, "[]"), "=")
			i := slices.IndexFunc(at, func(item any) bool {
				object, _ := item.(map[string]any)
				return object[key] == strings.ReplaceAll(value, "|", "/")
			})
			if i < 0 {
				return nil
			}
			v = at[i]
		default:
			return nil
		}
	}
	return v
}

// place is where something is found, as a path for field, and what must be there, as
// JSON.
type place struct{ path, want string }

func (p place) check(t *testing.T, flag, what string, object any) {
	t.Helper()
	if p.path == "" {
		return
	}
	var want any
	if err := json.Unmarshal([]byte(p.want), &want); err != nil {
		t.Fatalf("%s: %s: %v", flag, p.want, err)
	}
	got := field(object, p.path)
	if strings.HasSuffix(p.path, "/Env") { // to which the command adds in any order, and some engines a PATH
		got, want = variables(got), variables(want)
	}
	if !reflect.DeepEqual(got, want) {
		have, _ := json.Marshal(got)
		t.Errorf("%s: %s has %s %s, want %s", flag, what, p.path, have, p.want)
	}
}

// variables are the sorted variables of an environment, without PATH.
func variables(v any) any {
	list, _ := v.([]any)
	list = slices.DeleteFunc(slices.Clone(list), func(item any) bool { return strings.HasPrefix(fmt.Sprint(item), "PATH=") })
	slices.SortFunc(list, func(a, b any) int { return cmp.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
	return list
}

// flagRow is one flag with a value; what the service's spec says of it afterwards, and
// the container of its task. A flag that no container shows has no second place.
type flagRow struct {
	flag      string // with its value
	spec      place  // below Spec
	container place
}

// TestFlags_OfServices runs every flag that `docker service create` and `update` have
// against a node with a real engine, and compares what was asked for with what is
// stored and with the container that runs.
func TestFlags_OfServices(t *testing.T) {
	b := newSolo(t)
	image := b.image()
	began := fmt.Sprint(time.Now().Unix())
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	ids := map[string]string{}
	for _, name := range []string{"key1", "key2"} {
		ids[name] = b.docker("secret", "create", name, write(name, "hush"))
	}
	for _, name := range []string{"site1", "site2"} {
		ids[name] = b.docker("config", "create", name, write(name, "text"))
	}
	volume := "skep-test-flags-" + fmt.Sprint(os.Getpid())
	b.volumes = append(b.volumes, volume, volume+"-2")
	ref := func(kind, name, file, uid, gid string, mode int) string {
		return fmt.Sprintf(`{"File":{"Name":%q,"UID":%q,"GID":%q,"Mode":%d},"%sID":%q,"%sName":%q}`, file, uid, gid, mode, kind, ids[name], kind, name)
	}
	none := place{}
	const (
		task   = "TaskTemplate/"
		inside = task + "ContainerSpec/"
	)
	create := []flagRow{
		{"--name=full", place{"Name", `"full"`}, none},
		{"--replicas=2", place{"Mode", `{"Replicated":{"Replicas":2}}`}, none},
		{"--label=l1=a", place{"Labels", `{"l1":"a","l2":"b"}`}, none},
		{"--label=l2=b", none, none},
		{"--container-label=c1=a", place{inside + "Labels", `{"c1":"a","c2":"b"}`}, place{"Config/Labels/c1", `"a"`}},
		{"--container-label=c2=b", none, place{"Config/Labels/c2", `"b"`}},
		{"--env=E1=a", place{inside + "Env", `["F1=a","E1=a"]`}, place{"Config/Env", `["F1=a","E1=a","TIMECHECK_VERSION=1.0"]`}},
		{"--env-file=" + write("env", "F1=a\n"), none, none},
		{"--workdir=/w1", place{inside + "Dir", `"/w1"`}, place{"Config/WorkingDir", `"/w1"`}},
		{"--user=1000:1000", place{inside + "User", `"1000:1000"`}, place{"Config/User", `"1000:1000"`}},
		{"--group=44", place{inside + "Groups", `["44","45"]`}, place{"HostConfig/GroupAdd", `["44","45"]`}},
		{"--group=45", none, none},
		{"--hostname={{.Service.Name}}-h", place{inside + "Hostname", `"{{.Service.Name}}-h"`}, place{"Config/Hostname", `"full-h"`}},
		{"--init=true", place{inside + "Init", `true`}, place{"HostConfig/Init", `true`}},
		{"--tty=true", place{inside + "TTY", `true`}, place{"Config/Tty", `true`}},
		{"--read-only=true", place{inside + "ReadOnly", `true`}, place{"HostConfig/ReadonlyRootfs", `true`}},
		{"--stop-signal=SIGINT", place{inside + "StopSignal", `"SIGINT"`}, place{"Config/StopSignal", `"SIGINT"`}},
		{"--stop-grace-period=3s", place{inside + "StopGracePeriod", `3e9`}, none},
		{"--cap-add=NET_ADMIN", place{inside + "CapabilityAdd", `["CAP_NET_ADMIN"]`}, place{"HostConfig/CapAdd", `["CAP_NET_ADMIN"]`}},
		{"--cap-drop=CHOWN", place{inside + "CapabilityDrop", `["CAP_CHOWN"]`}, place{"HostConfig/CapDrop", `["CAP_CHOWN"]`}},
		{"--sysctl=net.core.somaxconn=300", place{inside + "Sysctls", `{"net.core.somaxconn":"300"}`}, place{"HostConfig/Sysctls", `{"net.core.somaxconn":"300"}`}},
		{"--ulimit=nofile=100:200", place{inside + "Ulimits", `[{"Name":"nofile","Hard":200,"Soft":100}]`}, place{"HostConfig/Ulimits", `[{"Name":"nofile","Hard":200,"Soft":100}]`}},
		{"--oom-score-adj=55", place{inside + "OomScoreAdj", `55`}, place{"HostConfig/OomScoreAdj", `55`}},
		{"--mount=type=tmpfs,target=/t,tmpfs-size=1048576,tmpfs-mode=700", place{inside + "Mounts/[Target=|t]", `{"Type":"tmpfs","Target":"/t","TmpfsOptions":{"SizeBytes":1048576,"Mode":448}}`},
			place{"HostConfig/Mounts/[Target=|t]", `{"Type":"tmpfs","Target":"/t","TmpfsOptions":{"SizeBytes":1048576,"Mode":448}}`}},
		{"--mount=type=volume,source=" + volume + ",target=/v,readonly,volume-nocopy,volume-label=x=y,volume-driver=local,volume-opt=type=tmpfs,volume-opt=device=tmpfs",
			place{inside + "Mounts/[Target=|v]", `{"Type":"volume","Source":"` + volume + `","Target":"/v","ReadOnly":true,"VolumeOptions":{"NoCopy":true,"Labels":{"x":"y"},"DriverConfig":{"Name":"local","Options":{"type":"tmpfs","device":"tmpfs"}}}}`},
			place{"HostConfig/Mounts/[Target=|v]", `{"Type":"volume","Source":"` + volume + `","Target":"/v","ReadOnly":true,"VolumeOptions":{"NoCopy":true,"Labels":{"x":"y"},"DriverConfig":{"Name":"local","Options":{"type":"tmpfs","device":"tmpfs"}}}}`}},
		{"--mount=type=bind,source=" + dir + ",target=/b,readonly,bind-propagation=private", place{inside + "Mounts/[Target=|b]/BindOptions", `{"Propagation":"private"}`}, place{"Mounts/[Destination=|b]/Propagation", `"private"`}},
		{"--mount=type=bind,source=" + dir + ",target=/b2,consistency=cached", place{inside + "Mounts/[Target=|b2]/Consistency", `"cached"`}, place{"HostConfig/Mounts/[Target=|b2]/Consistency", `"cached"`}},
		{"--dns=9.9.9.9", place{inside + "DNSConfig/Nameservers", `["9.9.9.9"]`}, place{"HostConfig/Dns", `["9.9.9.9"]`}},
		{"--dns-option=ndots:2", place{inside + "DNSConfig/Options", `["ndots:2"]`}, place{"HostConfig/DnsOptions", `["ndots:2"]`}},
		{"--dns-search=a.example", place{inside + "DNSConfig/Search", `["a.example"]`}, place{"HostConfig/DnsSearch", `["a.example"]`}},
		{"--host=db:10.0.0.1", place{inside + "Hosts", `["10.0.0.1 db"]`}, place{"HostConfig/ExtraHosts", `["db:10.0.0.1"]`}},
		{"--secret=source=key1,target=/k1,uid=3,gid=4,mode=0400", place{inside + "Secrets", "[" + ref("Secret", "key1", "/k1", "3", "4", 0o400) + "]"}, place{"Mounts/[Destination=|k1]/RW", `false`}},
		{"--config=source=site1,target=/s1,uid=3,gid=4,mode=0440", place{inside + "Configs", "[" + ref("Config", "site1", "/s1", "3", "4", 0o440) + "]"}, place{"Mounts/[Destination=|s1]/RW", `false`}},
		{"--health-cmd=any thing", place{inside + "Healthcheck/Test", `["CMD-SHELL","any thing"]`}, place{"Config/Healthcheck/Test", `["CMD-SHELL","any thing"]`}},
		{"--health-interval=300ms", place{inside + "Healthcheck/Interval", `3e8`}, place{"Config/Healthcheck/Interval", `3e8`}},
		{"--health-timeout=20s", place{inside + "Healthcheck/Timeout", `20e9`}, place{"Config/Healthcheck/Timeout", `20e9`}},
		{"--health-retries=5", place{inside + "Healthcheck/Retries", `5`}, place{"Config/Healthcheck/Retries", `5`}},
		{"--health-start-period=3s", place{inside + "Healthcheck/StartPeriod", `3e9`}, place{"Config/Healthcheck/StartPeriod", `3e9`}},
		{"--limit-cpu=0.5", place{task + "Resources/Limits/NanoCPUs", `5e8`}, place{"HostConfig/NanoCpus", `5e8`}},
		{"--limit-memory=64M", place{task + "Resources/Limits/MemoryBytes", `67108864`}, place{"HostConfig/Memory", `67108864`}},
		{"--limit-pids=50", place{task + "Resources/Limits/Pids", `50`}, place{"HostConfig/PidsLimit", `50`}},
		{"--reserve-cpu=0.01", place{task + "Resources/Reservations/NanoCPUs", `1e7`}, none},
		{"--reserve-memory=16M", place{task + "Resources/Reservations/MemoryBytes", `16777216`}, none},
		{"--restart-condition=on-failure", place{task + "RestartPolicy/Condition", `"on-failure"`}, none},
		{"--restart-delay=1s", place{task + "RestartPolicy/Delay", `1e9`}, none},
		{"--restart-max-attempts=3", place{task + "RestartPolicy/MaxAttempts", `3`}, none},
		{"--restart-window=10s", place{task + "RestartPolicy/Window", `1e10`}, none},
		{"--constraint=node.hostname==n1", place{task + "Placement/Constraints", `["node.hostname==n1"]`}, none},
		{"--placement-pref=spread=node.labels.zone", place{task + "Placement/Preferences", `[{"Spread":{"SpreadDescriptor":"node.labels.zone"}}]`}, none},
		{"--replicas-max-per-node=3", place{task + "Placement/MaxReplicas", `3`}, none},
		{"--log-driver=local", place{task + "LogDriver/Name", `"local"`}, place{"HostConfig/LogConfig/Type", `"local"`}},
		{"--log-opt=max-size=1m", place{task + "LogDriver/Options", `{"max-size":"1m"}`}, place{"HostConfig/LogConfig/Config/max-size", `"1m"`}},
		{"--endpoint-mode=dnsrr", place{"EndpointSpec/Mode", `"dnsrr"`}, none},
		{"--publish=mode=host,target=8080", place{"EndpointSpec/Ports", `[{"Protocol":"tcp","TargetPort":8080,"PublishMode":"host"}]`},
			place{"HostConfig/PortBindings", `{"8080/tcp":[{"HostIp":"","HostPort":""}]}`}},
		{"--update-parallelism=2", place{"UpdateConfig/Parallelism", `2`}, none},
		{"--update-delay=10ms", place{"UpdateConfig/Delay", `1e7`}, none},
		{"--update-monitor=50ms", place{"UpdateConfig/Monitor", `5e7`}, none},
		{"--update-failure-action=rollback", place{"UpdateConfig/FailureAction", `"rollback"`}, none},
		{"--update-max-failure-ratio=0.5", place{"UpdateConfig/MaxFailureRatio", `0.5`}, none},
		{"--update-order=start-first", place{"UpdateConfig/Order", `"start-first"`}, none},
		{"--rollback-parallelism=2", place{"RollbackConfig/Parallelism", `2`}, none},
		{"--rollback-delay=10ms", place{"RollbackConfig/Delay", `1e7`}, none},
		{"--rollback-monitor=50ms", place{"RollbackConfig/Monitor", `5e7`}, none},
		{"--rollback-failure-action=continue", place{"RollbackConfig/FailureAction", `"continue"`}, none},
		{"--rollback-max-failure-ratio=0.25", place{"RollbackConfig/MaxFailureRatio", `0.25`}, none},
		{"--rollback-order=start-first", place{"RollbackConfig/Order", `"start-first"`}, none},
		{"--entrypoint=/timecheck e1", place{inside + "Command", `["/timecheck","e1"]`}, place{"Config/Entrypoint", `["/timecheck","e1"]`}},
		{"--no-resolve-image=true", place{inside + "Image", `"` + image + `"`}, place{"Config/Image", `"` + image + `"`}},
		{"--quiet=true", place{inside + "Args", `["a1","a2"]`}, place{"Config/Cmd", `["a1","a2"]`}},
	}
	// What is there already is changed, and what is a list has one more.
	add := []flagRow{
		{"--image=" + image, place{inside + "Image", `"` + image + `"`}, place{"Config/Image", `"` + image + `"`}},
		{"--args=b1 b2", place{inside + "Args", `["b1","b2"]`}, place{"Config/Cmd", `["b1","b2"]`}},
		{"--entrypoint=/timecheck e2", place{inside + "Command", `["/timecheck","e2"]`}, place{"Config/Entrypoint", `["/timecheck","e2"]`}},
		{"--replicas=1", place{"Mode", `{"Replicated":{"Replicas":1}}`}, none},
		{"--label-add=l3=c", place{"Labels", `{"l1":"a","l2":"b","l3":"c"}`}, none},
		{"--container-label-add=c3=c", place{inside + "Labels", `{"c1":"a","c2":"b","c3":"c"}`}, place{"Config/Labels/c3", `"c"`}},
		{"--env-add=E2=b", place{inside + "Env", `["F1=a","E1=a","E2=b"]`}, place{"Config/Env", `["F1=a","E1=a","E2=b","TIMECHECK_VERSION=1.0"]`}},
		{"--workdir=/w2", place{inside + "Dir", `"/w2"`}, place{"Config/WorkingDir", `"/w2"`}},
		{"--user=1001", place{inside + "User", `"1001"`}, place{"Config/User", `"1001"`}},
		{"--group-add=46", place{inside + "Groups", `["44","45","46"]`}, place{"HostConfig/GroupAdd", `["44","45","46"]`}},
		{"--hostname=h2", place{inside + "Hostname", `"h2"`}, place{"Config/Hostname", `"h2"`}},
		{"--init=false", place{inside + "Init", `false`}, place{"HostConfig/Init", `false`}},
		{"--tty=false", place{inside + "TTY", `null`}, place{"Config/Tty", `false`}},
		{"--read-only=false", place{inside + "ReadOnly", `null`}, place{"HostConfig/ReadonlyRootfs", `false`}},
		{"--stop-signal=SIGTERM", place{inside + "StopSignal", `"SIGTERM"`}, place{"Config/StopSignal", `"SIGTERM"`}},
		{"--stop-grace-period=4s", place{inside + "StopGracePeriod", `4e9`}, none},
		{"--cap-add=SYS_TIME", place{inside + "CapabilityAdd", `["CAP_NET_ADMIN","CAP_SYS_TIME"]`}, place{"HostConfig/CapAdd", `["CAP_NET_ADMIN","CAP_SYS_TIME"]`}},
		{"--cap-drop=KILL", place{inside + "CapabilityDrop", `["CAP_CHOWN","CAP_KILL"]`}, place{"HostConfig/CapDrop", `["CAP_CHOWN","CAP_KILL"]`}},
		{"--sysctl-add=net.ipv4.ip_forward=1", place{inside + "Sysctls", `{"net.core.somaxconn":"300","net.ipv4.ip_forward":"1"}`}, place{"HostConfig/Sysctls", `{"net.core.somaxconn":"300","net.ipv4.ip_forward":"1"}`}},
		{"--ulimit-add=nproc=900", place{inside + "Ulimits", `[{"Name":"nofile","Hard":200,"Soft":100},{"Name":"nproc","Hard":900,"Soft":900}]`}, place{"HostConfig/Ulimits", `[{"Name":"nofile","Hard":200,"Soft":100},{"Name":"nproc","Hard":900,"Soft":900}]`}},
		{"--oom-score-adj=66", place{inside + "OomScoreAdj", `66`}, place{"HostConfig/OomScoreAdj", `66`}},
		{"--mount-add=type=volume,source=" + volume + "-2,target=/v2", place{inside + "Mounts/[Target=|v2]/Source", `"` + volume + `-2"`}, place{"Mounts/[Destination=|v2]/Name", `"` + volume + `-2"`}},
		{"--dns-add=8.8.8.8", place{inside + "DNSConfig/Nameservers", `["8.8.8.8","9.9.9.9"]`}, place{"HostConfig/Dns", `["8.8.8.8","9.9.9.9"]`}},
		{"--dns-option-add=rotate", place{inside + "DNSConfig/Options", `["ndots:2","rotate"]`}, place{"HostConfig/DnsOptions", `["ndots:2","rotate"]`}},
		{"--dns-search-add=b.example", place{inside + "DNSConfig/Search", `["a.example","b.example"]`}, place{"HostConfig/DnsSearch", `["a.example","b.example"]`}},
		{"--host-add=web:10.0.0.2", place{inside + "Hosts", `["10.0.0.1 db","10.0.0.2 web"]`}, place{"HostConfig/ExtraHosts", `["db:10.0.0.1","web:10.0.0.2"]`}},
		{"--secret-add=key2", place{inside + "Secrets", "[" + ref("Secret", "key1", "/k1", "3", "4", 0o400) + "," + ref("Secret", "key2", "key2", "0", "0", 0o444) + "]"}, place{"Mounts/[Destination=|run|secrets|key2]/RW", `false`}},
		{"--config-add=site2", place{inside + "Configs", "[" + ref("Config", "site1", "/s1", "3", "4", 0o440) + "," + ref("Config", "site2", "site2", "0", "0", 0o444) + "]"}, place{"Mounts/[Destination=|site2]/RW", `false`}},
		{"--health-cmd=other", place{inside + "Healthcheck/Test", `["CMD-SHELL","other"]`}, place{"Config/Healthcheck/Test", `["CMD-SHELL","other"]`}},
		{"--health-interval=200ms", place{inside + "Healthcheck/Interval", `2e8`}, place{"Config/Healthcheck/Interval", `2e8`}},
		{"--health-timeout=30s", place{inside + "Healthcheck/Timeout", `30e9`}, place{"Config/Healthcheck/Timeout", `30e9`}},
		{"--health-retries=6", place{inside + "Healthcheck/Retries", `6`}, place{"Config/Healthcheck/Retries", `6`}},
		{"--health-start-period=4s", place{inside + "Healthcheck/StartPeriod", `4e9`}, place{"Config/Healthcheck/StartPeriod", `4e9`}},
		{"--limit-cpu=0.6", place{task + "Resources/Limits/NanoCPUs", `6e8`}, place{"HostConfig/NanoCpus", `6e8`}},
		{"--limit-memory=65M", place{task + "Resources/Limits/MemoryBytes", `68157440`}, place{"HostConfig/Memory", `68157440`}},
		{"--limit-pids=60", place{task + "Resources/Limits/Pids", `60`}, place{"HostConfig/PidsLimit", `60`}},
		{"--reserve-cpu=0.02", place{task + "Resources/Reservations/NanoCPUs", `2e7`}, none},
		{"--reserve-memory=17M", place{task + "Resources/Reservations/MemoryBytes", `17825792`}, none},
		{"--restart-condition=any", place{task + "RestartPolicy/Condition", `"any"`}, none},
		{"--restart-delay=2s", place{task + "RestartPolicy/Delay", `2e9`}, none},
		{"--restart-max-attempts=4", place{task + "RestartPolicy/MaxAttempts", `4`}, none},
		{"--restart-window=20s", place{task + "RestartPolicy/Window", `2e10`}, none},
		{"--constraint-add=node.role==manager", place{task + "Placement/Constraints", `["node.hostname==n1","node.role==manager"]`}, none},
		{"--placement-pref-add=spread=node.labels.rack", place{task + "Placement/Preferences", `[{"Spread":{"SpreadDescriptor":"node.labels.zone"}},{"Spread":{"SpreadDescriptor":"node.labels.rack"}}]`}, none},
		{"--replicas-max-per-node=4", place{task + "Placement/MaxReplicas", `4`}, none},
		{"--log-driver=json-file", place{task + "LogDriver/Name", `"json-file"`}, place{"HostConfig/LogConfig/Type", `"json-file"`}},
		{"--log-opt=max-size=2m", place{task + "LogDriver/Options", `{"max-size":"2m"}`}, place{"HostConfig/LogConfig/Config/max-size", `"2m"`}},
		{"--endpoint-mode=vip", place{"EndpointSpec/Mode", `"vip"`}, none},
		{"--publish-add=mode=host,target=9090,published=29090,protocol=udp", place{"EndpointSpec/Ports", `[{"Protocol":"tcp","TargetPort":8080,"PublishMode":"host"},{"Protocol":"udp","TargetPort":9090,"PublishedPort":29090,"PublishMode":"host"}]`},
			place{"HostConfig/PortBindings", `{"8080/tcp":[{"HostIp":"","HostPort":""}],"9090/udp":[{"HostIp":"","HostPort":"29090"}]}`}},
		{"--force=true", place{task + "ForceUpdate", `1`}, none},
		{"--update-parallelism=3", place{"UpdateConfig/Parallelism", `3`}, none},
		{"--update-delay=20ms", place{"UpdateConfig/Delay", `2e7`}, none},
		{"--update-monitor=60ms", place{"UpdateConfig/Monitor", `6e7`}, none},
		{"--update-failure-action=continue", place{"UpdateConfig/FailureAction", `"continue"`}, none},
		{"--update-max-failure-ratio=0.25", place{"UpdateConfig/MaxFailureRatio", `0.25`}, none},
		{"--update-order=stop-first", place{"UpdateConfig/Order", `"stop-first"`}, none},
		{"--rollback-parallelism=3", place{"RollbackConfig/Parallelism", `3`}, none},
		{"--rollback-delay=20ms", place{"RollbackConfig/Delay", `2e7`}, none},
		{"--rollback-monitor=60ms", place{"RollbackConfig/Monitor", `6e7`}, none},
		{"--rollback-failure-action=pause", place{"RollbackConfig/FailureAction", `"pause"`}, none},
		{"--rollback-max-failure-ratio=0.5", place{"RollbackConfig/MaxFailureRatio", `0.5`}, none},
		{"--rollback-order=stop-first", place{"RollbackConfig/Order", `"stop-first"`}, none},
		{"--no-resolve-image=true", none, none},
		{"--quiet=true", none, none},
		{"--detach=false", none, none},
	}
	// What was there first is taken away.
	remove := []flagRow{
		{"--label-rm=l1", place{"Labels", `{"l2":"b","l3":"c"}`}, none},
		{"--container-label-rm=c1", place{inside + "Labels", `{"c2":"b","c3":"c"}`}, place{"Config/Labels/c1", `null`}},
		{"--env-rm=E1", place{inside + "Env", `["F1=a","E2=b"]`}, place{"Config/Env", `["F1=a","E2=b","TIMECHECK_VERSION=1.0"]`}},
		{"--group-rm=44", place{inside + "Groups", `["45","46"]`}, place{"HostConfig/GroupAdd", `["45","46"]`}},
		{"--cap-add=RESET", place{inside + "CapabilityAdd", `null`}, place{"HostConfig/CapAdd", `null`}},
		{"--cap-drop=RESET", place{inside + "CapabilityDrop", `null`}, place{"HostConfig/CapDrop", `null`}},
		{"--sysctl-rm=net.core.somaxconn", place{inside + "Sysctls", `{"net.ipv4.ip_forward":"1"}`}, place{"HostConfig/Sysctls", `{"net.ipv4.ip_forward":"1"}`}},
		{"--ulimit-rm=nofile", place{inside + "Ulimits", `[{"Name":"nproc","Hard":900,"Soft":900}]`}, place{"HostConfig/Ulimits", `[{"Name":"nproc","Hard":900,"Soft":900}]`}},
		{"--mount-rm=/v", place{inside + "Mounts/[Target=|v]", `null`}, place{"Mounts/[Destination=|v]", `null`}},
		{"--dns-rm=9.9.9.9", place{inside + "DNSConfig/Nameservers", `["8.8.8.8"]`}, place{"HostConfig/Dns", `["8.8.8.8"]`}},
		{"--dns-option-rm=ndots:2", place{inside + "DNSConfig/Options", `["rotate"]`}, place{"HostConfig/DnsOptions", `["rotate"]`}},
		{"--dns-search-rm=a.example", place{inside + "DNSConfig/Search", `["b.example"]`}, place{"HostConfig/DnsSearch", `["b.example"]`}},
		{"--host-rm=db:10.0.0.1", place{inside + "Hosts", `["10.0.0.2 web"]`}, place{"HostConfig/ExtraHosts", `["web:10.0.0.2"]`}},
		{"--secret-rm=key1", place{inside + "Secrets", "[" + ref("Secret", "key2", "key2", "0", "0", 0o444) + "]"}, place{"Mounts/[Destination=|k1]", `null`}},
		{"--config-rm=site1", place{inside + "Configs", "[" + ref("Config", "site2", "site2", "0", "0", 0o444) + "]"}, place{"Mounts/[Destination=|s1]", `null`}},
		{"--constraint-rm=node.hostname==n1", place{task + "Placement/Constraints", `["node.role==manager"]`}, none},
		{"--placement-pref-rm=spread=node.labels.zone", place{task + "Placement/Preferences", `[{"Spread":{"SpreadDescriptor":"node.labels.rack"}}]`}, none},
		{"--publish-rm=mode=host,target=8080", place{"EndpointSpec/Ports", `[{"Protocol":"udp","TargetPort":9090,"PublishedPort":29090,"PublishMode":"host"}]`},
			place{"HostConfig/PortBindings", `{"9090/udp":[{"HostIp":"","HostPort":"29090"}]}`}},
		{"--no-healthcheck=true", place{inside + "Healthcheck", `{"Test":["NONE"]}`}, place{"Config/Healthcheck", `{"Test":["NONE"]}`}},
		{"--replicas-max-per-node=0", place{task + "Placement/MaxReplicas", `null`}, none},
		{"--no-resolve-image=true", none, none},
	}
	back := []flagRow{
		{"--rollback=true", place{inside + "Env", `["F1=a","E1=a","E2=b"]`}, place{"Config/Env", `["F1=a","E1=a","E2=b","TIMECHECK_VERSION=1.0"]`}},
		{"--quiet=true", place{inside + "Healthcheck/Retries", `6`}, place{"Config/Healthcheck/Retries", `6`}},
	}
	type event struct {
		Type, Action, Scope string
		TimeNano            int64 `json:"timeNano"`
		Actor               struct {
			ID         string
			Attributes map[string]string
		}
	}
	events := func(filters ...string) (found []event, words []string) {
		t.Helper()
		// Until now and no longer: what comes while the stream is open is told as it comes.
		now := time.Now()
		args := []string{"events", "--format", "{{json .}}", "--since", began, "--until", fmt.Sprintf("%d.%09d", now.Unix(), now.Nanosecond())}
		for _, filter := range filters {
			args = append(args, "--filter", filter)
		}
		for line := range strings.Lines(b.docker(args...)) {
			var e event
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				t.Fatalf("%v: %s", err, line)
			}
			found, words = append(found, e), append(words, fmt.Sprintf("%s %s %s", e.Type, e.Action, e.Actor.Attributes["name"]))
		}
		return found, words
	}
	seen := map[string][]string{}
	known := map[string][]string{"create": serviceFlags(b, "create"), "update": serviceFlags(b, "update")}
	note := func(verb string, rows []flagRow) {
		for _, row := range rows {
			name, _, _ := strings.Cut(row.flag, "=")
			seen[verb] = append(seen[verb], name)
		}
	}
	apply := func(name string, rows []flagRow, args ...string) {
		t.Helper()
		note(args[1], rows)
		var flags []string
		for _, row := range rows {
			if !slices.Contains(known[args[1]], strings.SplitN(row.flag, "=", 2)[0]) {
				t.Logf("this docker command hasn't %s", row.flag)
				continue
			}
			flags = append(flags, row.flag)
		}
		output := b.docker(append(args[:2:2], append(flags, args[2:]...)...)...)
		if slices.Contains(flags, "--quiet=true") && len(strings.Fields(output)) != 1 {
			t.Errorf("docker service %s --quiet prints %q", args[1], output)
		}
		service := field(b.object("service", "inspect", name), "Spec")
		filter := []string{"--filter", "desired-state=running"}
		if slices.ContainsFunc(rows, func(r flagRow) bool { return strings.HasSuffix(r.flag, "-job") }) {
			filter = nil
		}
		container := b.container(name, filter...)
		for _, row := range rows {
			if !slices.Contains(flags, row.flag) {
				continue
			}
			row.spec.check(t, row.flag, "the service", service)
			row.container.check(t, row.flag, "the container", container)
		}
	}
	apply("full", create, "service", "create", image, "a1", "a2")
	// All that is one stream of events, the cluster's and the engine's, in order.
	all, words := events()
	last := -1
	for _, want := range []string{"secret create key1", "config create site1", "service create full", "container start full.1."} {
		next := slices.IndexFunc(words, func(w string) bool { return strings.HasPrefix(w, want) })
		if next <= last {
			t.Errorf("the event %q isn't where it should be among\n%s", want, strings.Join(words, "\n"))
		}
		last = max(last, next)
	}
	if !slices.IsSortedFunc(all, func(a, b event) int { return cmp.Compare(a.TimeNano, b.TimeNano) }) {
		t.Errorf("the events aren't in order:\n%s", strings.Join(words, "\n"))
	}
	if tasks := strings.Fields(b.docker("service", "ps", "-q", "--filter", "desired-state=running", "full")); len(tasks) != 2 {
		t.Errorf("full has the tasks %v, want 2", tasks)
	}
	apply("full", add, "service", "update", "full")
	apply("full", remove, "service", "update", "full")
	apply("full", back, "service", "update", "full")

	short := []flagRow{ // so that the command doesn't look at what came of it for five seconds
		{"--update-monitor=50ms", none, none},
		{"--no-resolve-image=true", none, none},
	}
	apply("agent", append([]flagRow{
		{"--name=agent", place{"Name", `"agent"`}, none},
		{"--mode=global", place{"Mode", `{"Global":{}}`}, none},
		{"--detach=false", none, none},
		{"--no-healthcheck=true", place{inside + "Healthcheck", `{"Test":["NONE"]}`}, place{"Config/Healthcheck/Test", `["NONE"]`}},
		{"--isolation=default", place{inside + "Isolation", `"default"`}, place{"HostConfig/Isolation", `""`}},
	}, short...), "service", "create", image)
	apply("sums", []flagRow{
		{"--name=sums", none, none},
		{"--mode=replicated-job", none, none},
		{"--replicas=3", place{"Mode", `{"ReplicatedJob":{"MaxConcurrent":2,"TotalCompletions":3}}`}, none},
		{"--max-concurrent=2", none, none},
		{"--entrypoint=/bin/sh", none, place{"Config/Entrypoint", `["/bin/sh"]`}},
		{"--no-resolve-image=true", none, none},
	}, "service", "create", image)
	b.eventually("0/2 (3/3 completed)", "service", "ls", "--filter", "name=sums")
	// Of a job the command can change the number by scale only, and sends --max-concurrent
	// to nobody: what it sends is the spec as it was, which is another run.
	note("update", []flagRow{{flag: "--max-concurrent"}})
	b.docker("service", "update", "--detach", "--no-resolve-image", "--max-concurrent", "1", "sums")
	place{"Mode", `{"ReplicatedJob":{"MaxConcurrent":2,"TotalCompletions":3}}`}.check(t, "--max-concurrent", "the job", field(b.object("service", "inspect", "sums"), "Spec"))
	b.eventually("(3/3 completed)", "service", "ls", "--filter", "name=sums")
	apply("sweep", []flagRow{
		{"--name=sweep", none, none},
		{"--mode=global-job", place{"Mode", `{"GlobalJob":{}}`}, none},
		{"--entrypoint=/bin/sh", none, place{"Config/Entrypoint", `["/bin/sh"]`}},
		{"--no-resolve-image=true", none, none},
	}, "service", "create", image)

	t.Run("Refused", func(t *testing.T) {
		b := &solo{console: console{t, b.socket, b.config}, cluster: b.cluster}
		refuse := func(says, flag, value string) {
			b.refused(says, "service", "create", "-d", "--no-resolve-image", flag, value, image)
			b.refused(says, "service", "update", "-d", "--no-resolve-image", flag, value, "agent")
			for _, verb := range []string{"create", "update"} {
				seen[verb] = append(seen[verb], flag)
			}
		}
		refuse("leave --isolation out: it is for Windows", "--isolation", "hyperv")
		refuse("leave --credential-spec out: it is for Windows", "--credential-spec", "file://spec.json")
		for _, v := range []struct{ flag, value string }{{"--cap-add", "nothing_at_all"}, {"--stop-signal", "SIGNONE"}} {
			// Only the engine knows these words: the task says what it says.
			b.docker("service", "create", "-d", "--no-resolve-image", "--name", "wrong", "--restart-condition", "none", v.flag, v.value, image)
			b.eventually("Rejected", "service", "ps", "--no-trunc", "wrong")
			b.docker("service", "rm", "wrong")
		}
		seen["create"] = append(seen["create"], "--health-start-interval")
		seen["update"] = append(seen["update"], "--health-start-interval") // which the command itself ignores
		if !slices.Contains(known["create"], "--health-start-interval") {
			return
		}
		b.docker("service", "create", "-d", "--no-resolve-image", "--name", "soon", "--health-cmd", "x", "--health-interval", "300ms", "--health-start-period", "5s", "--health-start-interval", "100ms", image)
		place{inside + "Healthcheck/StartInterval", `1e8`}.check(t, "--health-start-interval", "the service", field(b.object("service", "inspect", "soon"), "Spec"))
		// This engine may be too old for it, and then the task says so.
		if b.engineBefore("1.44") {
			b.eventually(`"health-check start interval" requires API version 1.44`, "service", "ps", "--no-trunc", "soon")
		} else {
			b.eventually("Running", "service", "ps", "--filter", "desired-state=running", "soon")
			place{"Config/Healthcheck/StartInterval", `1e8`}.check(t, "--health-start-interval", "the container", b.container("soon"))
		}
	})

	for _, c := range []struct {
		filters []string
		right   func(event) bool
	}{
		{[]string{"service=full"}, func(e event) bool { return e.Type == "service" && e.Actor.Attributes["name"] == "full" }},
		{[]string{"type=service", "event=create"}, func(e event) bool { return e.Type == "service" && e.Action == "create" }},
		{[]string{"scope=swarm"}, func(e event) bool { return e.Scope == "swarm" }},
		{[]string{"scope=local", "type=container"}, func(e event) bool { return e.Scope == "local" && e.Type == "container" }},
		{[]string{"secret=key1"}, func(e event) bool { return e.Type == "secret" && e.Actor.ID == ids["key1"] }},
		{[]string{"config=" + ids["site2"]}, func(e event) bool { return e.Type == "config" && e.Actor.Attributes["name"] == "site2" }},
		{[]string{"label=com.docker.swarm.service.name=sweep"}, func(e event) bool { return strings.HasPrefix(e.Actor.Attributes["name"], "sweep.") }},
	} {
		found, words := events(c.filters...)
		if len(found) == 0 || slices.ContainsFunc(found, func(e event) bool { return !c.right(e) }) {
			t.Errorf("events with the filters %v are\n%s", c.filters, strings.Join(words, "\n"))
		}
	}
	updated, _ := events("service=full", "event=update")
	if !slices.ContainsFunc(updated, func(e event) bool {
		a := e.Actor.Attributes
		return a["replicas.old"] == "2" && a["replicas.new"] == "1"
	}) ||
		!slices.ContainsFunc(updated, func(e event) bool {
			a := e.Actor.Attributes
			return a["updatestate.old"] == "updating" && a["updatestate.new"] == "completed"
		}) ||
		!slices.ContainsFunc(updated, func(e event) bool { return e.Actor.Attributes["updatestate.new"] == "rollback_started" }) {
		t.Errorf("the updates of the service are %+v", updated)
	}

	for verb, flags := range known {
		for _, flag := range flags {
			if !slices.Contains(seen[verb], flag) && flagsElsewhere[flag] == "" {
				t.Errorf("docker service %s %s isn't tested here", verb, flag)
			}
		}
	}
}

// flagsElsewhere are the flags that other tests see to.
var flagsElsewhere = map[string]string{
	"--with-registry-auth": "TestRegistry",

	"--network":     "TestNetworks_OfTheEngine",
	"--network-add": "TestNetworks_OfTheEngine",
	"--network-rm":  "TestNetworks_OfTheEngine",

	"--generic-resource":     "cluster/api, TestCLIPlacement",
	"--generic-resource-add": "cluster/api, TestCLIPlacement",
	"--generic-resource-rm":  "cluster/api, TestCLIPlacement",
}

var helpFlag = regexp.MustCompile(`(?m)^ +(?:-\w, )?(--[a-z-]+)`)

// serviceFlags are the flags that Docker's command has when it speaks to the node.
func serviceFlags(b *solo, verb string) []string {
	b.Helper()
	var flags []string
	for _, match := range helpFlag.FindAllStringSubmatch(b.docker("service", verb, "--help"), -1) {
		flags = append(flags, match[1])
	}
	if len(flags) < 60 {
		b.Fatalf("found only %v in the help", flags)
	}
	return flags
}

// image builds an image of this test alone: timecheck, and something for a health check
// to run. Tests of others on this machine may remove theirs at any time.
func (b *solo) image() string {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
	defer cancel()
	shell := filepath.Join(b.TempDir(), "sh")
	build := exec.CommandContext(ctx, "go", "build", "-ldflags=-s -w", "-o", shell, "./testdata/sh")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("build: %v\n%s", err, out)
	}
	tag := strings.ToLower(b.Name()) + fmt.Sprintf(":%d", os.Getpid())
	b.images = append(b.images, tag)
	const dockerfile = "FROM scratch\nCOPY timecheck /timecheck\nCOPY sh /bin/sh\nENV TIMECHECK_VERSION=1.0\nENTRYPOINT [\"/timecheck\"]\n"
	if err := buildImage(ctx, b.cluster.engine, tag, dockerfile, filepath.Join(b.cluster.bin, "timecheck"), shell); err != nil {
		b.Fatal(err)
	}
	return tag
}
