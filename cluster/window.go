package cluster

import (
	"fmt"
	"regexp"
	"strings"
	"time"
)

// Windows are spans of the week in which something may be done.
type Windows []window

// window is a span of at most a day: it opens by one schedule, and closes when the other one is
// due next, which on a day when clocks skip both is at once.
type window struct {
	opens, closes Schedule
	day           bool // both are midnight
}

var windowText = regexp.MustCompile(`^(?:([A-Za-z,-]+) +)?(\d\d):([0-5]\d) ?- ?(\d\d):([0-5]\d)$`)

// readWindows reads windows, in UTC.
func readWindows(text string) (windows Windows, err error) {
	for part := range strings.SplitSeq(text, ";") {
		const wanted = wants(`days and hours such as "Sat 02:00-05:00", "Mon-Fri 22:00-04:00" or "12:00-13:00", several with ; between them`)
		match := windowText.FindStringSubmatch(strings.TrimSpace(part))
		if match == nil {
			return nil, wanted
		}
		days, end := strings.ReplaceAll(strings.ToLower(match[1]), "-sun", "-7"), match[4]
		if days == "" {
			days = "*"
		}
		var w window
		if end == "24" && match[5] == "00" {
			end, w.day = "00", match[2] == "00" && match[3] == "00"
		}
		if w.opens, err = readSchedule(fmt.Sprintf("%s %s * * %s", match[3], match[2], days)); err != nil {
			return nil, wanted
		}
		if w.closes, err = readSchedule(fmt.Sprintf("%s %s * * *", match[5], end)); err != nil {
			return nil, wanted
		}
		if match[2] == match[4] && match[3] == match[5] {
			return nil, wants("windows that close at another time than they open, and 00:00-24:00 for a whole day")
		}
		windows = append(windows, w)
	}
	return windows, nil
}

// in is the same windows by the clocks of a zone.
func (ws Windows) in(zone *time.Location) (moved Windows) {
	for _, w := range ws {
		w.opens.zone, w.closes.zone = zone, zone
		moved = append(moved, w)
	}
	return moved
}

// Open is since when a window is open that is open at t, the first of them if there are several;
// zero when none is.
//
// When clocks are changed, opening and closing are as times of a Schedule: what clocks skip is at
// the change, so that a window between such times isn't there that day; what they show twice
// is at the first.
func (ws Windows) Open(t time.Time) (since time.Time) {
	for _, w := range ws {
		opened := w.opens.Latest(t.AddDate(0, 0, -8), t)
		if opened.IsZero() {
			continue
		}
		from := opened.Add(-1)
		if w.day {
			from = opened
		}
		if !w.closes.Next(from).After(t) {
			continue
		}
		if since.IsZero() || opened.Before(since) {
			since = opened
		}
	}
	return since
}

// Next is when a window opens next after t, whether or not one is open.
func (ws Windows) Next(t time.Time) (next time.Time) {
	for _, w := range ws {
		if opens := w.opens.Next(t); next.IsZero() || opens.Before(next) {
			next = opens
		}
	}
	return next
}
