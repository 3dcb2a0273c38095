package cluster

import (
	"errors"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func scheduled(t testing.TB, text, zone string) Schedule {
	t.Helper()
	s, ok := ScheduleOf(map[string]string{LabelSchedule.Name: text, LabelScheduleZone.Name: zone})
	if !ok {
		t.Fatalf("%q isn't a schedule", text)
	}
	return s.Schedule
}

func TestSchedule_Next(t *testing.T) {
	for _, c := range []struct{ text, zone, from, want string }{
		{"0 3 * * *", "UTC", "2026-01-01T02:59:59Z", "2026-01-01T03:00:00Z 2026-01-02T03:00:00Z"},
		{"0 3 * * *", "UTC", "2026-01-01T03:00:00Z", "2026-01-02T03:00:00Z"},
		{"0 3 * * *", "Asia/Kolkata", "2026-01-01T00:00:00Z", "2026-01-01T21:30:00Z"},
		{"*/20 8-10/2 * * *", "UTC", "2026-01-01T08:30:00Z", "2026-01-01T08:40:00Z 2026-01-01T10:00:00Z"},
		{"5,50 1 * * *", "UTC", "2026-01-01T01:05:00Z", "2026-01-01T01:50:00Z 2026-01-02T01:05:00Z"},
		{"0 0 29 2 *", "UTC", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z 2032-02-29T00:00:00Z"},
		{"0 0 31 * *", "UTC", "2026-04-01T00:00:00Z", "2026-05-31T00:00:00Z 2026-07-31T00:00:00Z"},
		// A day of the month or one of the week, where both are given.
		{"0 12 13 * fri", "UTC", "2026-11-06T12:00:00Z", "2026-11-13T12:00:00Z 2026-11-20T12:00:00Z"},
		{"0 12 */10 * FRI", "UTC", "2026-11-06T12:00:00Z", "2026-12-11T12:00:00Z"},
		{"0 12 * jun-aug 7", "UTC", "2026-09-01T00:00:00Z", "2027-06-06T12:00:00Z"},
		{"@weekly", "UTC", "2026-11-30T00:00:00Z", "2026-12-06T00:00:00Z"},
		{"@hourly", "UTC", "2026-11-30T00:00:00Z", "2026-11-30T01:00:00Z"},
		{"@yearly", "UTC", "2026-11-30T00:00:00Z", "2027-01-01T00:00:00Z"},

		// In Berlin clocks go from 2:00 to 3:00 on 29 March 2026 (1:00 UTC), and from 3:00 to 2:00 on
		// 25 October (1:00 UTC). What is skipped runs at the change, once; what comes twice runs once.
		{"30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-29T01:00:00Z 2026-03-30T00:30:00Z"},
		{"10,30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-29T01:00:00Z 2026-03-30T00:10:00Z"},
		{"30 2,3 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-29T01:00:00Z 2026-03-29T01:30:00Z 2026-03-30T00:30:00Z"},
		{"30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", "2026-10-25T00:30:00Z 2026-10-26T01:30:00Z"},
		{"0 2,3 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", "2026-10-25T00:00:00Z 2026-10-25T02:00:00Z 2026-10-26T01:00:00Z"},
		// Every hour is every hour.
		{"30 * * * *", "Europe/Berlin", "2026-03-29T00:00:00Z", "2026-03-29T00:30:00Z 2026-03-29T01:30:00Z"},
		{"30 * * * *", "Europe/Berlin", "2026-10-25T00:00:00Z", "2026-10-25T00:30:00Z 2026-10-25T01:30:00Z 2026-10-25T02:30:00Z"},
		// In Lord Howe it is half an hour; in Beirut and Santiago it is at midnight.
		{"15 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00:00Z", "2026-10-03T15:30:00Z 2026-10-04T15:15:00Z"},
		{"30 0 * * *", "Asia/Beirut", "2026-03-28T12:00:00Z", "2026-03-28T22:00:00Z 2026-03-29T21:30:00Z"},
		{"0 0 * * *", "America/Santiago", "2026-09-05T12:00:00Z", "2026-09-06T04:00:00Z 2026-09-07T03:00:00Z"},
	} {
		s := scheduled(t, c.text, c.zone)
		at, err := time.Parse(time.RFC3339, c.from)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for range strings.Fields(c.want) {
			at = s.Next(at)
			got = append(got, at.UTC().Format(time.RFC3339))
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%q in %s after %s: %v, want %s", c.text, c.zone, c.from, got, c.want)
		}
	}
}

func TestSchedule_Refuses(t *testing.T) {
	for _, text := range []string{"", "* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 8", "5-1 * * * *", "*/0 * * * *", "a * * * *", "-1 * * * *",
		"* * * * mo", "@often", "0 0 30 2 *", "1,,2 * * * *", "? * * * *", "+1 * * * *", "* * * , *"} {
		if _, err := readSchedule(text); err == nil {
			t.Errorf("%q is a schedule", text)
		}
	}
	for label, value := range map[string]string{"skep.schedule.tz": "Europe/Nowhere", "skep.schedule.concurrency": "allow", "skep.schedule.deadline": "48h"} {
		if err := CheckLabels(OnService, map[string]string{label: value}); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s=%s: %v", label, value, err)
		}
	}
	if _, err := readZone("../../etc/passwd"); err == nil {
		t.Error("a path is a zone")
	}
}

// Whatever the schedule and the zone, times come one after the other, on whole minutes that clocks
// show; none that they show is left out, but at a change of clocks.
func TestSchedule_Properties(t *testing.T) {
	fields := [][]string{{"0", "*/15", "7,30", "59"}, {"*", "2", "0-3", "*/5", "1,2,3", "23"}, {"*", "1", "29", "*/2"}, {"*", "3", "10", "feb"}, {"*", "0", "mon-fri", "7"}}
	rapid.Check(t, func(r *rapid.T) {
		var parts []string
		for i, f := range fields {
			parts = append(parts, rapid.SampledFrom(f).Draw(r, []string{"minute", "hour", "day", "month", "weekday"}[i]))
		}
		zone := rapid.SampledFrom([]string{"UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Beirut", "America/Santiago", "Pacific/Apia", "Asia/Kathmandu"}).Draw(r, "zone")
		s := scheduled(t, strings.Join(parts, " "), zone)
		from := time.Unix(rapid.Int64Range(1_700_000_000, 1_900_000_000).Draw(r, "from"), 0)
		next := s.Next(from)
		if !next.After(from) || next.Unix()%60 != 0 {
			r.Fatalf("%v in %s: %v comes after %v", parts, zone, next, from)
		}
		if s.Next(next.Add(-time.Second)) != next && !s.Next(next.Add(-time.Second)).Equal(next) {
			r.Fatalf("%v in %s: a second before %v the next is %v", parts, zone, next, s.Next(next.Add(-time.Second)))
		}
		// By looking at each minute's clock, for a day.
		for at := from.Truncate(time.Minute).Add(time.Minute); at.Before(next) && at.Before(from.Add(24*time.Hour)); at = at.Add(time.Minute) {
			local := at.In(s.zone)
			if !has(s.minute, local.Minute()) || !has(s.hour, local.Hour()) || !s.onDay(local) {
				continue
			}
			start, _ := local.ZoneBounds()
			if s.anyHour || start.IsZero() || at.Sub(start) >= time.Hour {
				r.Fatalf("%v in %s: clocks show it at %v, and the next after %v is %v", parts, zone, local, from, next)
			}
		}
	})
}

// The latest time is the last of all that come.
func TestSchedule_Latest(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		text := rapid.SampledFrom([]string{"* * * * *", "*/7 * * * *", "30 2 * * *", "0 */5 * * *", "0 0 1 * *"}).Draw(r, "schedule")
		s := scheduled(t, text, rapid.SampledFrom([]string{"UTC", "Europe/Berlin", "Australia/Lord_Howe"}).Draw(r, "zone"))
		from := time.Unix(rapid.Int64Range(1_700_000_000, 1_900_000_000).Draw(r, "from"), 0)
		to := from.Add(time.Duration(rapid.IntRange(-10, 90_000).Draw(r, "seconds")) * time.Second)
		var want time.Time
		for next := s.Next(from); !next.After(to); next = s.Next(next) {
			want = next
		}
		if got := s.Latest(from, to); !got.Equal(want) {
			r.Fatalf("%q: the latest from %v to %v is %v, want %v", text, from, to, got, want)
		}
	})
}

// A plan asks for both of each scheduled job.
func BenchmarkSchedule(b *testing.B) {
	to := time.Date(2026, 11, 30, 23, 59, 30, 0, time.UTC)
	for _, text := range []string{"* * * * *", "0 3 * * *", "0 0 29 2 *"} {
		s := scheduled(b, text, "Europe/Berlin")
		b.Run(text, func(b *testing.B) {
			for range b.N {
				s.Latest(to.Add(-24*time.Hour), to)
				s.Next(to)
			}
		})
	}
}
