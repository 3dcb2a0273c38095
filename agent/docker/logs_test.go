package docker

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/events"
	"github.com/google/go-cmp/cmp"

	"skep/cluster"
)

// frame makes one frame as the engine writes it.
func frame(stream byte, text string) []byte {
	head := make([]byte, 8, 8+len(text))
	head[0] = stream
	binary.BigEndian.PutUint32(head[4:], uint32(len(text)))
	return append(head, text...)
}

var at = cluster.At(time.Date(2026, 11, 23, 1, 2, 3, 4, time.UTC))

const stamp = "2026-11-23T01:02:03.000000004Z "

func read(data []byte, tty bool) (lines []cluster.LogLine, err error) {
	next := frames
	if tty {
		next = linesOf
	}
	err = copyLines(bufio.NewReader(bytes.NewReader(data)), next, func(more []cluster.LogLine) error {
		lines = append(lines, more...)
		return nil
	})
	return lines, err
}

func TestLogs_Frames(t *testing.T) {
	data := append(frame(1, stamp+" hello world\n"), frame(2, stamp+"a=1%2C2,b=x+y oops\n")...)
	data = append(data, frame(1, stamp+" no newline")...)
	got, err := read(data, false)
	if err != nil {
		t.Fatal(err)
	}
	want := []cluster.LogLine{
		{Time: at, Data: []byte("hello world\n")},
		{Stderr: true, Time: at, Data: []byte("oops\n"), Attrs: map[string]string{"a": "1,2", "b": "x y"}},
		{Time: at, Data: []byte("no newline")},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestLogs_Terminal(t *testing.T) {
	got, err := read([]byte(stamp+" one\r\n"+stamp+" two\r\n"), true)
	want := []cluster.LogLine{{Time: at, Data: []byte("one\r\n")}, {Time: at, Data: []byte("two\r\n")}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

func TestLogs_Damage(t *testing.T) {
	for name, data := range map[string][]byte{
		"cut in a frame":    frame(1, stamp+" hello\n")[:20],
		"no time":           frame(1, "hello\n"),
		"no details":        frame(1, stamp+"hello"),
		"huge frame":        {1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff},
		"the engine's word": frame(3, "the log is broken"),
	} {
		if _, err := read(data, false); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := read(frame(3, "the log is broken"), false); err == nil || !strings.Contains(err.Error(), "the log is broken") {
		t.Errorf("err = %v", err)
	}
}

func TestExplain_KeepsTheEnginesWords(t *testing.T) {
	if got := explain(errors.New("Error response from daemon: conflict")).Error(); got != "conflict" {
		t.Errorf("text = %q", got)
	}
	if explain(nil) != nil {
		t.Error("no error became one")
	}
}

func TestExplain_AnEngineThatIsAway(t *testing.T) {
	_, err := driver(t).Describe(t.Context())
	if !errors.Is(err, cluster.ErrUnavailable) {
		t.Errorf("err = %v", err)
	}
	err = driver(t).Watch(t.Context(), "n1", func(string) { t.Error("the stream stands") })
	if !errors.Is(err, cluster.ErrUnavailable) {
		t.Errorf("watch: %v", err)
	}
	if _, err := driver(t).Prepare(t.Context(), assignment(nil)); !errors.Is(err, cluster.ErrUnavailable) {
		t.Errorf("prepare: %v", err)
	}
}

func TestHear_AnExitOfAnotherContainerIsNotTheTasks(t *testing.T) {
	d := driver(t)
	d.remember("t1", func(k *known) { k.id = "c1" })
	die := func(containerID, taskID, code string) events.Message {
		return events.Message{Action: events.ActionDie, Actor: events.Actor{
			ID: containerID, Attributes: map[string]string{LabelTaskID: taskID, "exitCode": code}}}
	}
	if got := d.hear(die("c0", "t1", "3")); got != "t1" || d.recall("t1").exited {
		t.Errorf("another container's exit counted: %q", got)
	}
	if got := d.hear(die("c9", "t9", "3")); got != "t9" || d.recall("t9").id != "" {
		t.Error("an unknown task was remembered")
	}
	if d.hear(die("c1", "t1", "3")); !d.recall("t1").exited || d.recall("t1").code != 3 {
		t.Error("the exit wasn't remembered")
	}
}
