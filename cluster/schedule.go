package cluster

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"
	_ "time/tzdata" // managers' machines needn't have the zones
)

// Schedule is when a job runs: five fields as in crontab(5), read in a time zone. Its zero
// value is never.
type Schedule struct {
	minute, hour, day, month, weekday uint64 // bits
	// anyDay and anyWeekday tell that a field is *, so that the other one decides alone.
	anyDay, anyWeekday bool
	// anyHour tells that the field of hours begins with *: then it goes by how time passes, not
	// by what clocks show.
	anyHour bool
	zone    *time.Location
}

const (
	// DefaultScheduleDeadline is what holds without LabelScheduleDeadline, and
	// maxScheduleDeadline what that may be at most.
	DefaultScheduleDeadline = time.Hour
	maxScheduleDeadline     = 24 * time.Hour
	// scheduleHorizon is how far away the next time may be: between two 29ths of February there
	// can be eight years.
	scheduleHorizon = 9
)

// scheduleNames are schedules by name.
var scheduleNames = map[string]string{
	"@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *", "@weekly": "0 0 * * 0",
	"@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@hourly": "0 * * * *",
}

// Concurrency is what becomes of a job's run that isn't over when the next one is due.
type Concurrency string

// The ways: the next one waits for its end, or takes its place.
const (
	ConcurrencyForbid  Concurrency = "forbid"
	ConcurrencyReplace Concurrency = "replace"
)

// JobSchedule is what a job's labels say of when it runs.
type JobSchedule struct {
	Schedule
	Concurrency Concurrency
	// Deadline is how late a run may begin.
	Deadline time.Duration
}

// ScheduleOf is what a service's labels say of when it runs, if they do.
func ScheduleOf(labels map[string]string) (s JobSchedule, ok bool) {
	if s.Schedule, ok = LabelSchedule.Of(labels); !ok {
		return s, false
	}
	s.zone = time.UTC
	if zone, set := LabelScheduleZone.Of(labels); set {
		s.zone = zone
	}
	s.Concurrency, s.Deadline = ConcurrencyForbid, DefaultScheduleDeadline
	if c, set := LabelScheduleConcurrency.Of(labels); set {
		s.Concurrency = c
	}
	if d, set := LabelScheduleDeadline.Of(labels); set {
		s.Deadline = d
	}
	return s, true
}

// readSchedule reads a schedule, in UTC.
func readSchedule(text string) (Schedule, error) {
	const wanted = wants("five fields as in crontab, such as \"0 3 * * *\", or @hourly, @daily, @weekly, @monthly or @yearly")
	if named, ok := scheduleNames[text]; ok {
		text = named
	}
	fields := strings.Fields(text)
	if len(fields) != 5 {
		return Schedule{}, wanted
	}
	s := Schedule{zone: time.UTC, anyHour: strings.HasPrefix(fields[1], "*"), anyDay: strings.HasPrefix(fields[2], "*"), anyWeekday: strings.HasPrefix(fields[4], "*")}
	for i, f := range []struct {
		to       *uint64
		min, max int
		names    string
	}{
		{&s.minute, 0, 59, ""}, {&s.hour, 0, 23, ""}, {&s.day, 1, 31, ""},
		{&s.month, 1, 12, "jan feb mar apr may jun jul aug sep oct nov dec"}, {&s.weekday, 0, 7, "sun mon tue wed thu fri sat"},
	} {
		bits, ok := readField(fields[i], f.min, f.max, f.names)
		if !ok {
			return Schedule{}, wanted
		}
		*f.to = bits
	}
	if s.weekday&(1<<7) != 0 {
		s.weekday |= 1 // Sunday has two numbers.
	}
	if s.Next(time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
		return Schedule{}, wants("a time that comes, and this one never does")
	}
	return s, nil
}

// readField reads a list of *, numbers, names and ranges with steps.
func readField(text string, lowest, highest int, names string) (bits uint64, ok bool) {
	number := func(text string) (int, bool) {
		if i := strings.Index(names, strings.ToLower(text)); len(text) == 3 && i >= 0 && i%4 == 0 {
			return lowest + i/4, true
		}
		n, err := strconv.ParseUint(text, 10, 8)
		return int(n), err == nil && int(n) >= lowest && int(n) <= highest
	}
	for part := range strings.SplitSeq(text, ",") {
		span, stepText, stepped := strings.Cut(part, "/")
		step := 1
		if stepped {
			n, err := strconv.ParseUint(stepText, 10, 8)
			if err != nil || n == 0 {
				return 0, false
			}
			step = int(n)
		}
		first, last := lowest, highest
		if span != "*" {
			from, to, ranged := strings.Cut(span, "-")
			var good bool
			if first, good = number(from); !good {
				return 0, false
			}
			switch {
			case ranged:
				if last, good = number(to); !good || last < first {
					return 0, false
				}
			case !stepped:
				last = first
			}
		}
		for n := first; n <= last; n += step {
			bits |= 1 << n
		}
	}
	return bits, true
}

// zones are those that were read; a zone is a file of the machine's or of the program's.
var zones sync.Map

func readZone(text string) (*time.Location, error) {
	if known, ok := zones.Load(text); ok {
		return known.(*time.Location), nil
	}
	zone, err := time.LoadLocation(text)
	if err != nil || text == "" || text == "Local" {
		return nil, wants("the name of a time zone such as Europe/Berlin")
	}
	zones.Store(text, zone)
	return zone, nil
}

func readConcurrency(text string) (Concurrency, error) {
	switch c := Concurrency(text); c {
	case ConcurrencyForbid, ConcurrencyReplace:
		return c, nil
	case "allow":
		return "", wants("forbid or replace: a job has one run at a time, for more make several jobs")
	}
	return "", wants("forbid or replace")
}

func readScheduleDeadline(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil || d < time.Second || d > maxScheduleDeadline {
		return 0, wants("a duration such as 10m, from 1s to " + maxScheduleDeadline.String())
	}
	return d, nil
}

func has(bits uint64, n int) bool { return bits&(1<<n) != 0 }

// onDay tells whether there are times on the day of t, as its own zone has it.
func (s Schedule) onDay(t time.Time) bool {
	day, weekday := has(s.day, t.Day()), has(s.weekday, int(t.Weekday()))
	switch {
	case !has(s.month, int(t.Month())):
		return false
	case s.anyDay || s.anyWeekday:
		return day && weekday
	}
	return day || weekday
}

// Next is the first time after t; zero for never.
//
// When clocks are changed, a schedule of certain hours keeps to what clocks show, each time
// once: what they skip runs at the moment of the change, what they show twice runs at the
// first. One of all hours, or each so many, keeps to how time passes: it runs whenever clocks show
// what it says, twice if they do, and skips what they do.
func (s Schedule) Next(t time.Time) time.Time {
	if s.zone == nil {
		return time.Time{}
	}
	local := t.In(s.zone)
	for day, end := local, local.AddDate(scheduleHorizon, 0, 0); day.Before(end); day = noon(day, 1) {
		if !s.onDay(day) {
			continue
		}
		if next := s.nextOn(day, t); !next.IsZero() {
			return next
		}
	}
	return time.Time{}
}

// noon is the middle of the day of t, or of so many days later: it is there on every day.
func noon(t time.Time, days int) time.Time {
	return time.Date(t.Year(), t.Month(), t.Day()+days, 12, 0, 0, 0, t.Location())
}

// nextOn is the first time after t that is on the day.
func (s Schedule) nextOn(day, t time.Time) (first time.Time) {
	changes, from := s.changes(day), 0
	if local := t.In(s.zone); !changes && local.YearDay() == day.YearDay() && local.Year() == day.Year() {
		from = local.Hour()
	}
	for hour := from; hour < 24; hour++ {
		if !has(s.hour, hour) {
			continue
		}
		for minute := range 60 {
			if !has(s.minute, minute) {
				continue
			}
			for _, at := range s.at(day, hour, minute) {
				if at.After(t) && (first.IsZero() || at.Before(first)) {
					first = at
				}
			}
		}
		if !first.IsZero() && !changes {
			return first
		}
	}
	return first
}

// changes tells whether clocks are changed on the day.
func (s Schedule) changes(day time.Time) bool {
	_, morning := time.Date(day.Year(), day.Month(), day.Day(), 0, 0, 0, 0, s.zone).Zone()
	_, evening := noon(day, 0).Zone()
	_, night := time.Date(day.Year(), day.Month(), day.Day(), 23, 59, 0, 0, s.zone).Zone()
	return morning != evening || evening != night
}

// at is when clocks show that time on the day, as far as the schedule is about that.
func (s Schedule) at(day time.Time, hour, minute int) []time.Time {
	t := time.Date(day.Year(), day.Month(), day.Day(), hour, minute, 0, 0, s.zone)
	start, end := t.ZoneBounds()
	if t.Hour() != hour || t.Minute() != minute { // Clocks skip it; t is after or before that.
		earlier := t.Hour()*60+t.Minute() < hour*60+minute
		if t.Day() != day.Day() {
			earlier = t.Before(noon(day, 0))
		}
		switch {
		case s.anyHour:
			return nil
		case earlier:
			return []time.Time{end}
		}
		return []time.Time{start}
	}
	_, offset := t.Zone()
	first, second := t, time.Time{}
	if !start.IsZero() {
		if _, before := start.Add(-time.Second).Zone(); before > offset {
			if earlier := t.Add(-time.Duration(before-offset) * time.Second); earlier.Before(start) {
				first, second = earlier, t
			}
		}
	}
	if !end.IsZero() && second.IsZero() {
		if _, after := end.Zone(); after < offset {
			if later := t.Add(time.Duration(offset-after) * time.Second); !later.Before(end) {
				second = later
			}
		}
	}
	if s.anyHour && !second.IsZero() {
		return []time.Time{first, second}
	}
	return []time.Time{first}
}

// Latest is the last time after from that is not after to; zero when there is none. It looks at the
// last minutes first, and then further back, so that many times cost no more than few.
func (s Schedule) Latest(from, to time.Time) (last time.Time) {
	if first := s.Next(from); first.IsZero() || first.After(to) {
		return last
	}
	for span := time.Minute; last.IsZero(); span *= 4 {
		start := to.Add(-span)
		if !start.After(from) {
			start = from
		}
		for next := s.Next(start); !next.IsZero() && !next.After(to); next = s.Next(next) {
			last = next
		}
		if start.Equal(from) {
			return last
		}
	}
	return last
}

// Scheduled is since when a job's schedule counts: what was due before is over. current is the
// service's revision, which each run and each update makes anew.
func Scheduled(s *Service, current *Revision) time.Time {
	since := current.CreatedAt
	for _, t := range []time.Time{current.Due, s.ScheduledSince} {
		if t.After(since) {
			since = t
		}
	}
	return since
}

// RunJob begins another run of a job, which runs the same as the one before; due is when the
// schedule wanted it, zero for a run that somebody asked for.
func RunJob(old *Service, current *Revision, due time.Time) Change {
	next := *old
	next.LastRevision++
	next.Revision = next.LastRevision
	auth := ""
	if current != nil {
		auth = current.Auth
	}
	r := newRevision(&next, auth)
	r.Idle, r.Due = false, due
	if !due.IsZero() {
		r.Message = "due at " + due.UTC().Format(time.RFC3339)
	}
	return Change{Service: &next, Revision: r}
}

// JobState is a job as `skep job ls` shows it.
type JobState struct {
	ID, Name, Mode string
	// Schedule and Zone are as its labels have them; empty without a schedule.
	Schedule, Zone string `json:",omitempty"`
	Paused         bool
	// Next is when it runs next; zero for not by itself.
	Next time.Time `json:",omitzero"`
	// Run is the number of its last run, 0 for none that is kept, Began when that began, and Ended
	// when it was over: zero while it runs.
	Run          uint64
	Due          time.Time `json:",omitzero"`
	Began, Ended time.Time `json:",omitzero"`
	// Outcome says how the run went, in words.
	Outcome string
}

// RunOutcome says how a run of a job went.
func RunOutcome(completed, failed int) string {
	if failed == 0 {
		return fmt.Sprintf("%d completed", completed)
	}
	return fmt.Sprintf("%d completed, %d failed", completed, failed)
}
