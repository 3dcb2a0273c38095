package timeline

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
	"time"
)

// drawn is an election, after which w1 is lost and the clocks go on.
const drawn = `
	0 n1 ready term=6
	300 n2 silent n1 took=300ms
	301 n2 asked n3 word="misses it too"
	302 n2 role word=candidate why=silence
	303 n2 asks-vote n1 term=7
	303 n2 asks-vote n3 term=7
	304 n3 voted n2 term=7 word=granted
	305 n2 vote n3 term=7 word=granted took=2ms
	305 n2 role word=leader term=7
	306 n3 leaderless n1
	307 n3 follows n2 term=7
	310 n2 ready term=7 took=5ms
	334 n2 writes term=7 count=3 took=9ms
	620 n2 lost n1 took=310ms
	900 n2 node <w1> word=down why="gone & lost"
	3303 n2 vote n1 term=7 word="no answer" took=3s
	9000 n1 role word=follower
	9001 n1 lost n3 took=8s
	9002 n1 follows n2 term=7
	9003 n2 found n1 took=8.7s`

func readable(t *testing.T, picture string) {
	t.Helper()
	for dec := xml.NewDecoder(strings.NewReader(picture)); ; {
		if _, err := dec.Token(); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatalf("%v in %s", err, picture)
		}
	}
}

func TestSVG_ShowsWhoLedAndWhoVoted(t *testing.T) {
	told := parse(t, drawn)
	told.At = ms(10000)
	told.Managers[0].Role = Follower
	picture := SVG(told, ms(0), told.At)
	readable(t, picture)
	for _, want := range []string{
		"n1 leads, term 6 from 12:00:00.000 to 12:00:09.000", "n2 stands for election from 12:00:00.302 to 12:00:00.305", "n2 leads, term 7 from 12:00:00.305 to 12:00:10.000",
		"n3 knows of no leader from 12:00:00.306 to 12:00:00.307", "n2 asked n3 for its vote in term 7: granted after 2 ms", "n2 had no answer of n1 from 12:00:00.310 to 12:00:09.003",
		"n2 accepted 3 writes from 12:00:00.334 on, the slowest after 9 ms", "&lt;w1&gt; is down from 12:00:00.900 to 12:00:10.000: gone &amp; lost",
	} {
		if !strings.Contains(picture, want) {
			t.Errorf("%q isn't in the picture", want)
		}
	}
	if strings.Contains(picture, "n1 had no answer") {
		t.Error("one that stood still says who was silent")
	}
	readable(t, Page(told))
}

// Any part of a timeline can be drawn, also none.
func TestSVG_OfAnyPart(t *testing.T) {
	whole := parse(t, drawn)
	for from := range whole.Records {
		part := whole
		part.Records = whole.Records[from:]
		part.At = ms(10000)
		readable(t, SVG(part, part.Records[0].Time, part.Records[0].Time.Add(time.Duration(from)*100*time.Millisecond)))
	}
	readable(t, SVG(Timeline{}, time.Time{}, time.Time{}))
	readable(t, Page(Timeline{At: noon}))
}
