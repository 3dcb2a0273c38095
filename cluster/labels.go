package cluster

import (
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
)

// labelPrefix begins the labels that mean something to skep. One that skep doesn't know
// is refused: somebody counts on it, or has mistyped it.
const labelPrefix = "skep."

// LabelScope is the kind of object that a label is of.
type LabelScope string

// The kinds of objects that have labels of skep's.
const (
	OnCluster LabelScope = "cluster"
	OnNode    LabelScope = "node"
	OnService LabelScope = "service"
)

// Label is a label by which users say what Docker's specs have no field for. Its value
// is text in the spec and a T for those who act on it.
type Label[T any] struct {
	Name string
	read func(text string) (T, error)
}

// Of is what the label says among those of an object. Without the label, or with a value
// that can't be read, which the API doesn't let in, there is none.
func (l *Label[T]) Of(labels map[string]string) (value T, ok bool) {
	text, ok := labels[l.Name]
	if !ok {
		return value, false
	}
	value, err := l.read(text)
	return value, err == nil
}

// The labels of services.
var (
	LabelAffinity = register(OnService, "skep.affinity", readServices, "web",
		"tasks are placed only on nodes that have a task of each of these services, named or by ID, with commas between them")
	LabelAntiAffinity = register(OnService, "skep.anti-affinity", readServices, "web,db",
		"no task is placed on a node where one of these services has one, nor one of theirs where this service has one")
	LabelDependsOn = register(OnService, "skep.depends-on", readDependencies, "db:healthy,migrate:completed,cache:started",
		"tasks of a new revision get no node until these services, of the same stack if it is in one, are so; once they were, it doesn't matter any more for that revision")
	LabelDependsOnTimeout = register(OnService, "skep.depends-on.timeout", readDuration, "10m",
		"beside it: an update that has waited for so long has failed; 1h without it")
	LabelFence = register(OnService, "skep.fence", readBool, "true",
		"two tasks of a slot never run at the same time, see below")
	LabelImageWatch = register(OnService, "skep.image.watch", readImageWatch, "5m",
		"so often the registry is asked for the digest of the image's tag; when the tag moved the service is updated, see below; at least 30s")
	LabelImageWatchZone = register(OnService, "skep.image.watch.tz", readZone, "Europe/Berlin",
		"the time zone of the window; UTC without it")
	LabelImageWatchWindow = register(OnService, "skep.image.watch.window", readWindows, "Sat 02:00-05:00",
		"beside it: when such an update may begin; also `Mon-Fri 22:00-04:00` or `12:00-13:00`, several with `;` between them; always without it")
	LabelPublish = register(OnService, "skep.publish", readLocality, "prefer-local",
		"who answers on ports that all nodes publish: `all` tasks, those of the node that was asked if it has any (`prefer-local`), or only those (`local`)")
	LabelHostIP = register(OnService, "skep.publish.host-ip", readHostIPs, "10.0.0.5",
		"the address of nodes that ports are published on, instead of all; for some ports only: `8080=10.0.0.5,53/udp=10.0.0.6`")
	LabelRebalance = register(OnService, "skep.rebalance", readRebalance, "auto",
		"tasks are moved as by `skep service rebalance` when nodes joined or came back and nothing has changed about nodes for a while")
	LabelRebalanceQuiet = register(OnService, "skep.rebalance.quiet", readDuration, "15m",
		"beside it: for how long; 5 minutes without it")
	LabelRestartMaxDelay = register(OnService, "skep.restart.max-delay", readRestartDelay, "5m",
		"the delay before a task that ended is replaced doubles with each end in a row, from `--restart-delay` up to this; at most 24h")
	LabelRestartStable = register(OnService, "skep.restart.stable", readDuration, "10m",
		"beside it: how long a task must run for its end to count as the first again; twice the longest delay without it")
	LabelSchedule = register(OnService, "skep.schedule", readSchedule, "0 3 * * *",
		"of a job: it runs then, by the fields of crontab or as `@daily`, and not when it is created or updated, see below")
	LabelScheduleConcurrency = register(OnService, "skep.schedule.concurrency", readConcurrency, "forbid",
		"what is due while it still runs waits for that (`forbid`, as without it), or ends it (`replace`)")
	LabelScheduleDeadline = register(OnService, "skep.schedule.deadline", readScheduleDeadline, "10m",
		"how late a run may begin, when nobody led or another one went on; 1h without it, at most 24h")
	LabelScheduleKeep = register(OnService, "skep.schedule.keep", readRevisionHistory, "30",
		"how many runs `skep service history` remembers, instead of what the cluster's `skep.revision-history` says")
	LabelScheduleZone = register(OnService, "skep.schedule.tz", readZone, "Europe/Berlin",
		"the time zone of the schedule; UTC without it")
	LabelStartDeadline = register(OnService, "skep.start-deadline", readDuration, "90s",
		"how long a task of an update may take to run before that counts as a failure; 5 minutes without it")
	LabelStaticAddresses = register(OnService, "skep.static-addresses", readBool, "true",
		"a task has the addresses of the one in whose place it comes, also on another node, and starts when that has ended")
	LabelSticky = register(OnService, "skep.sticky", readBool, "true",
		"a client's connections to the service's virtual IP or ports all go to one task, as long as the tasks are the same")
	LabelPauseAfter = register(OnService, "skep.update.pause-after", readTasks, "1",
		"an update pauses when so many tasks were replaced; `skep service resume` goes on with the others, `skep service rollback` goes back")
)

// The labels of nodes.
var (
	LabelDrainUntil = register(OnNode, "skep.drain.until", readTime, "2026-12-01T07:30:00Z",
		"when the drained node is active again, by itself, and loses the label; set by `skep node drain --for`")
	LabelReserveCPUs = register(OnNode, "skep.reserve.cpus", readCPUs, "0.5",
		"services can't reserve these CPUs: they are kept back for the machine itself")
	LabelReserveMemory = register(OnNode, "skep.reserve.memory", readSize, "512m",
		"the same for memory")
)

// The labels of the cluster.
var (
	LabelAllowHostOptions = register(OnCluster, "skep.allow-host-options", readBool, "true",
		"lets services have labels `skep.host.…`; set by `skep cluster update --allow-host-options`")
	LabelConsole = register(OnCluster, "skep.console", readConsole, "write",
		"what pages of the console may do: `off`, `read`, or `write`, which changes services and nodes; `read` without it; set by `skep cluster update --console`")
	LabelEncryptNetworks = register(OnCluster, "skep.encrypt-networks", readBool, "true",
		"overlay networks that are made from then on are encrypted, the ingress network too; set by `skep cluster update --encrypt-networks`")
	LabelForbidExec = register(OnCluster, "skep.forbid-exec", readBool, "true",
		"refuses `docker exec` and `skep service exec` in containers of tasks; set by `skep cluster update --forbid-exec`")
	LabelRevisionHistory = register(OnCluster, "skep.revision-history", readRevisionHistory, "10",
		"how many revisions of each service are kept, at most 1000; set by `skep cluster update --revision-history`")
)

// The families of labels, whose names only begin alike. Values are checked where they
// are read, since they depend on each other.
const (
	// LabelHost begins the labels that ApplyHostOptions reads. Each of them can make a
	// container the master of its node.
	LabelHost = "skep.host."
	// LabelSimulate begins the labels that the simulated driver reads.
	LabelSimulate = "skep.simulate."
)

// knownLabel is what the API and the README have of a label, whatever its type.
type knownLabel struct {
	on LabelScope
	// name, of a family what its names begin with.
	name string
	// example is a value; of a family the rest of a name with a value.
	example string
	// doc is what the label does, in one line of Markdown, as in the README.
	doc string
	// check says what a value should be when it isn't one; nil for a family.
	check func(text string) error
}

// knownLabels are all labels of skep's.
var knownLabels = []*knownLabel{
	{OnService, LabelHost, "shm-size=64m", "what engines can do, see `skep cluster update --allow-host-options` above", nil},
	{OnService, LabelSimulate, "run-for=10s", "how tasks behave on nodes that run none (`skep daemon --driver simulate`); also as a label of the container", nil},
}

// register adds a label to those that are known.
func register[T any](on LabelScope, name string, read func(string) (T, error), example, doc string) *Label[T] {
	check := func(text string) error { _, err := read(text); return err }
	knownLabels = append(knownLabels, &knownLabel{on, name, example, doc, check})
	return &Label[T]{Name: name, read: read}
}

// CheckLabels refuses labels of skep's that objects of this kind don't have, or whose
// value makes no sense.
func CheckLabels(on LabelScope, labels map[string]string) error {
	for _, label := range slices.Sorted(maps.Keys(labels)) {
		if !strings.HasPrefix(label, labelPrefix) {
			continue
		}
		known := findLabel(on, label)
		if known == nil {
			return Errorf(ErrInvalid, "label %s: skep knows no such label of a %s; it knows %s", label, on, labelsOf(on))
		}
		if known.check == nil {
			continue
		}
		if err := known.check(labels[label]); err != nil {
			return Errorf(ErrInvalid, "label %s: %q won't do, it takes %v", label, labels[label], err)
		}
	}
	return nil
}

func findLabel(on LabelScope, label string) *knownLabel {
	for _, known := range knownLabels {
		family := known.check == nil
		if known.on == on && (known.name == label || family && strings.HasPrefix(label, known.name)) {
			return known
		}
	}
	return nil
}

// labelsOf lists the names of all labels that objects of this kind can have.
func labelsOf(on LabelScope) string {
	var names []string
	for _, known := range knownLabels {
		switch {
		case known.on != on:
		case known.check == nil:
			names = append(names, known.name+"*")
		default:
			names = append(names, known.name)
		}
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// wants is what a value should have been; who refuses it says of which label.
type wants string

func (w wants) Error() string { return string(w) }

func readBool(text string) (bool, error) {
	if text != "true" && text != "false" {
		return false, wants("true or false")
	}
	return text == "true", nil
}

func readDuration(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return 0, wants("a duration such as 90s")
	}
	return d, nil
}

func readTime(text string) (time.Time, error) {
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, wants("a time such as 2026-12-01T07:30:00Z")
	}
	return at, nil
}

// readRebalance reads whether a service is rebalanced by itself.
func readRebalance(text string) (bool, error) {
	switch text {
	case "auto":
		return true, nil
	case "off":
		return false, nil
	}
	return false, wants("auto or off")
}

func readTasks(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		return 0, wants("a number of tasks, at least 1")
	}
	return n, nil
}

func readRestartDelay(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 || d > MaxRestartDelay {
		return 0, wants("a duration such as 5m, at most " + MaxRestartDelay.String())
	}
	return d, nil
}

func readRevisionHistory(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || n > MaxRevisionHistory {
		return 0, wants("a number from 0 to " + strconv.Itoa(MaxRevisionHistory))
	}
	return n, nil
}

func readConsole(text string) (ConsoleUse, error) {
	switch text {
	case "off":
		return ConsoleOff, nil
	case "read":
		return ConsoleRead, nil
	case "write":
		return ConsoleWrite, nil
	}
	return 0, wants("off, read or write")
}

var dnsName = regexp.MustCompile(`^[a-zA-Z0-9](?:[-_]*[A-Za-z0-9]+)*$`)

// IsServiceName tells whether a service can be called so, as Swarm has it.
func IsServiceName(name string) bool { return dnsName.MatchString(name) }

func readServices(text string) ([]string, error) {
	names := strings.Split(text, ",")
	for i, name := range names {
		if names[i] = strings.TrimSpace(name); !IsServiceName(names[i]) {
			return nil, wants("names or IDs of services, with commas between them")
		}
	}
	return names, nil
}

func readLocality(text string) (PublishLocality, error) {
	switch text {
	case "all":
		return PublishAnywhere, nil
	case "prefer-local":
		return PublishPreferLocal, nil
	case "local":
		return PublishLocal, nil
	}
	return 0, wants("all, prefer-local or local")
}

var cpuNumber = regexp.MustCompile(`^\d{1,6}(\.\d{1,9})?$`)

// readCPUs reads a number of CPUs, in billionths.
func readCPUs(text string) (nano int64, err error) {
	if !cpuNumber.MatchString(text) {
		return 0, wants("a number of CPUs such as 0.5")
	}
	cpus, err := strconv.ParseFloat(text, 64)
	return int64(cpus*1e9 + 0.5), err
}

// readSize reads a number of bytes, with or without a unit.
func readSize(text string) (bytes int64, err error) {
	if bytes, err = units.RAMInBytes(text); err != nil || bytes < 0 {
		return 0, wants("a size such as 512m")
	}
	return bytes, nil
}
