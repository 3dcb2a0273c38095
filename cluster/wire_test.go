package cluster

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
)

// added adds a field of a later level to every struct in a message.
func added(v any) {
	switch v := v.(type) {
	case map[any]any:
		numbered := len(v) == 0
		for key, value := range v {
			added(value)
			_, number := key.(uint64)
			numbered = numbered || number
		}
		if numbered {
			v[uint64(99)] = map[any]any{"new": uint64(1)}
		}
	case []any:
		for _, one := range v {
			added(one)
		}
	}
}

// What a later level adds to messages is ignored, at every depth, and what is said
// beside it counts. A message that has nothing else in it is a heartbeat.
func TestMessages_OfALaterLevel(t *testing.T) {
	for _, message := range messages() {
		sent := encoded(t, message)
		later := decoded[map[any]any](t, sent)
		added(later)
		var frame bytes.Buffer
		if err := WriteFrame(&frame, later); err != nil {
			t.Fatal(err)
		}
		if frame.Len() < len(sent)+4+5 {
			t.Fatalf("nothing was added to %T", message)
		}
		read := reflect.New(reflect.TypeOf(message))
		if err := ReadFrame(&frame, read.Interface()); err != nil {
			t.Errorf("%T: %v", message, err)
			continue
		}
		if got := encoded(t, read.Elem().Interface()); !bytes.Equal(got, sent) {
			t.Errorf("%T: read as %+v, want %+v", message, read.Elem(), message)
		}
	}
}

// Whoever says which skep it runs may say anything.
func TestBuild_IsBounded(t *testing.T) {
	if got := (Build{Version: strings.Repeat("ä", 100)}).Bounded().Version; got != strings.Repeat("ä", 32) {
		t.Errorf("%q", got)
	}
}
