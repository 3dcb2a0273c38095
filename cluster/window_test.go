package cluster

import (
	"testing"
	"time"
)

func TestWindows(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ text, at, since, next string }{
		// 2026-12-05 is a Saturday.
		{"Sat 02:00-05:00", "2026-12-05 01:59", "", "2026-12-05 02:00"},
		{"Sat 02:00-05:00", "2026-12-05 02:00", "2026-12-05 02:00", "2026-12-12 02:00"},
		{"Sat 02:00-05:00", "2026-12-05 04:59", "2026-12-05 02:00", "2026-12-12 02:00"},
		{"Sat 02:00-05:00", "2026-12-05 05:00", "", "2026-12-12 02:00"},
		{"sat 02:00-05:00", "2026-12-06 03:00", "", "2026-12-12 02:00"},
		// Over midnight it belongs to the day on which it opens.
		{"Mon-Fri 22:00-04:00", "2026-12-05 03:59", "2026-12-04 22:00", "2026-12-07 22:00"},
		{"Mon-Fri 22:00-04:00", "2026-12-05 22:30", "", "2026-12-07 22:00"},
		{"Mon-Fri 22:00-04:00", "2026-12-07 03:00", "", "2026-12-07 22:00"},
		{"Fri-Sun 00:00-24:00", "2026-12-06 23:59", "2026-12-06 00:00", "2026-12-11 00:00"},
		{"Fri-Sun 00:00-24:00", "2026-12-07 00:00", "", "2026-12-11 00:00"},
		{"12:00-13:00; Sat,Sun 12:30-15:00", "2026-12-05 12:45", "2026-12-05 12:00", "2026-12-06 12:00"},
		{"12:00-13:00; Sat,Sun 12:30-15:00", "2026-12-05 14:00", "2026-12-05 12:30", "2026-12-06 12:00"},
		{"12:00-13:00; Sat,Sun 12:30-15:00", "2026-12-07 14:00", "", "2026-12-08 12:00"},
		// 2026-03-29 has no clock between 2 and 3: what it skips is at the change.
		{"02:30-05:00", "2026-03-29 03:10", "2026-03-29 03:00", "2026-03-30 02:30"},
		{"01:00-02:30", "2026-03-29 01:59", "2026-03-29 01:00", "2026-03-30 01:00"},
		{"01:00-02:30", "2026-03-29 03:00", "", "2026-03-30 01:00"},
		{"02:00-02:30", "2026-03-29 03:00", "", "2026-03-30 02:00"},
		{"02:00-02:30", "2026-03-30 02:10", "2026-03-30 02:00", "2026-03-31 02:00"},
	} {
		windows, err := readWindows(c.text)
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		clock := func(text string) (at time.Time) {
			if text != "" {
				if at, err = time.ParseInLocation("2006-01-02 15:04", text, berlin); err != nil {
					t.Fatal(err)
				}
			}
			return at
		}
		windows = windows.in(berlin)
		if got, want := windows.Open(clock(c.at)), clock(c.since); !got.Equal(want) {
			t.Errorf("%s at %s: open since %v, want %v", c.text, c.at, got, want)
		}
		next := windows.Next(clock(c.at))
		if want := clock(c.next); !next.Equal(want) && c.next != "2026-03-29 02:00" {
			t.Errorf("%s at %s: the next opens at %v, want %v", c.text, c.at, next, want)
		}
	}
	// 2026-10-25 has the hour from 2 to 3 twice: it opens and closes at the first.
	windows, err := readWindows("02:15-02:45")
	if err != nil {
		t.Fatal(err)
	}
	windows = windows.in(berlin)
	first := time.Date(2026, 10, 25, 0, 30, 0, 0, time.UTC)
	if windows.Open(first).IsZero() || !windows.Open(first.Add(time.Hour)).IsZero() {
		t.Errorf("open since %v and %v", windows.Open(first), windows.Open(first.Add(time.Hour)))
	}
	for _, text := range []string{"", "always", "Sat", "Sat 02:00", "02:00", "2:00-5:00", "02:00-02:00", "02:00-24:30", "24:00-02:00", "25:00-26:00", "02:60-03:00", "Sun-Fri-Sat 02:00-03:00",
		"Sad 02:00-03:00", "6 02:00-03:00", "Sat 02:00-03:00;", "Sat-Fri 02:00-03:00", "02:00-03:00 Sat", "Sat 02:00-03:00, 04:00-05:00", "* 02:00-03:00"} {
		if _, err := readWindows(text); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}
