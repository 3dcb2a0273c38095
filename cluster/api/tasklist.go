package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/store"
)

// taskList shows the tasks of one list. What tasks share, the specs of their revisions and their networks, is shown and
// encoded once, and spliced into each: that is nearly all of a task.
type taskList struct {
	view     store.View
	specs    map[revisionID][]byte
	networks map[*cluster.Network]swarm.Network
	encoded  map[string][]byte // networks, by their IDs
	shown    swarm.Task        // the next task, one for all as it is large
	revision revisionID        // of shown
	scratch  jsonEncoder
}

type revisionID struct {
	service string
	number  uint64
}

func newTaskList(view store.View) *taskList {
	return &taskList{
		view: view, specs: map[revisionID][]byte{}, networks: map[*cluster.Network]swarm.Network{}, encoded: map[string][]byte{},
		scratch: newJSONEncoder(),
	}
}

// show makes task the next one to be written.
func (l *taskList) show(task *cluster.Task) *taskList {
	l.shown, l.revision = renderTaskWith(l.view, task, l.network), revisionID{task.ServiceID, task.Revision}
	return l
}

func (l *taskList) network(n *cluster.Network) swarm.Network {
	shown, known := l.networks[n]
	if !known {
		shown = renderSwarmNetwork(n)
		l.networks[n] = shown
	}
	return shown
}

// appendJSON writes the task that is shown, with the bytes of json.Encoder.
func (l *taskList) appendJSON(out []byte) ([]byte, error) {
	t := &l.shown
	spec, known := l.specs[l.revision]
	if !known {
		var err error
		if spec, err = l.scratch.append(nil, &t.Spec); err != nil {
			return out, err
		}
		l.specs[l.revision] = spec
	}
	w := jsonWriter{out: out, scratch: &l.scratch}
	w.out = append(w.out, '{')
	w.name(`"ID":`).text(t.ID)
	w.name(`"Version":`)
	w.version(t.Version)
	w.name(`"CreatedAt":`).time(t.CreatedAt)
	w.name(`"UpdatedAt":`).time(t.UpdatedAt)
	w.optional(`"Name":`, t.Name)
	w.name(`"Labels":`).any(t.Labels, len(t.Labels) == 0 && t.Labels != nil, "{}")
	w.name(`"Spec":`)
	w.out = append(w.out, spec...)
	w.optional(`"ServiceID":`, t.ServiceID)
	if t.Slot != 0 {
		w.name(`"Slot":`)
		w.out = strconv.AppendInt(w.out, int64(t.Slot), 10)
	}
	w.optional(`"NodeID":`, t.NodeID)
	w.name(`"Status":`)
	w.status(&t.Status)
	w.optional(`"DesiredState":`, string(t.DesiredState))
	if len(t.NetworksAttachments) > 0 {
		w.name(`"NetworksAttachments":`)
		l.attachments(&w)
	}
	if len(t.GenericResources) > 0 {
		w.name(`"GenericResources":`).any(t.GenericResources, false, "")
	}
	if t.JobIteration != nil {
		w.name(`"JobIteration":`)
		w.version(*t.JobIteration)
	}
	w.name(`"Volumes":`).any(t.Volumes, len(t.Volumes) == 0 && t.Volumes != nil, "[]")
	w.out = append(w.out, '}')
	return w.out, w.err
}

func (l *taskList) attachments(w *jsonWriter) {
	w.out = append(w.out, '[')
	for i := range l.shown.NetworksAttachments {
		a := &l.shown.NetworksAttachments[i]
		network, known := l.encoded[a.Network.ID]
		if !known {
			var err error
			if network, err = l.scratch.append(nil, &a.Network); err != nil {
				w.err = errors.Join(w.err, err)
				return
			}
			l.encoded[a.Network.ID] = network
		}
		if i > 0 {
			w.out = append(w.out, ',')
		}
		w.out = append(w.out, '{')
		w.name(`"Network":`)
		w.out = append(w.out, network...)
		if len(a.Addresses) > 0 {
			w.name(`"Addresses":`)
			for j, address := range a.Addresses {
				w.out = append(w.out, "[,"[min(j, 1)])
				w.text(address)
			}
			w.out = append(w.out, ']')
		}
		w.out = append(w.out, '}')
	}
	w.out = append(w.out, ']')
}

// jsonWriter writes objects of JSON field by field.
type jsonWriter struct {
	out     []byte
	scratch *jsonEncoder
	err     error
}

// name begins a field.
func (w *jsonWriter) name(name string) *jsonWriter {
	if w.out[len(w.out)-1] != '{' {
		w.out = append(w.out, ',')
	}
	w.out = append(w.out, name...)
	return w
}

func (w *jsonWriter) optional(name, text string) {
	if text != "" {
		w.name(name).text(text)
	}
}

// text writes a text. One that isn't plain is the library's matter.
func (w *jsonWriter) text(text string) {
	for i := range len(text) {
		if c := text[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			w.any(text, false, "")
			return
		}
	}
	w.out = append(append(append(w.out, '"'), text...), '"')
}

// any writes any value: short if that is how it is.
func (w *jsonWriter) any(v any, is bool, short string) {
	if is {
		w.out = append(w.out, short...)
		return
	}
	var err error
	w.out, err = w.scratch.append(w.out, v)
	w.err = errors.Join(w.err, err)
}

func (w *jsonWriter) time(t time.Time) {
	if year := t.Year(); year < 0 || year > 9999 {
		w.err = errors.Join(w.err, fmt.Errorf("a time in the year %d", year))
		return
	}
	w.out = append(t.AppendFormat(append(w.out, '"'), time.RFC3339Nano), '"')
}

func (w *jsonWriter) version(v swarm.Version) {
	w.out = append(w.out, '{')
	if v.Index != 0 {
		w.name(`"Index":`)
		w.out = strconv.AppendUint(w.out, v.Index, 10)
	}
	w.out = append(w.out, '}')
}

func (w *jsonWriter) status(s *swarm.TaskStatus) {
	w.out = append(w.out, '{')
	w.name(`"Timestamp":`).time(s.Timestamp)
	w.optional(`"State":`, string(s.State))
	w.optional(`"Message":`, s.Message)
	w.optional(`"Err":`, s.Err)
	if c := s.ContainerStatus; c != nil {
		w.name(`"ContainerStatus":`)
		w.out = append(w.out, '{')
		w.name(`"ContainerID":`).text(c.ContainerID)
		w.name(`"PID":`)
		w.out = strconv.AppendInt(w.out, int64(c.PID), 10)
		w.name(`"ExitCode":`)
		w.out = append(strconv.AppendInt(w.out, int64(c.ExitCode), 10), '}')
	}
	w.name(`"PortStatus":`).any(&s.PortStatus, len(s.PortStatus.Ports) == 0, "{}")
	w.out = append(w.out, '}')
}

// jsonEncoder appends what json.Encoder writes of a value, without the line break.
type jsonEncoder struct {
	buffer  *bytes.Buffer
	encoder *json.Encoder
}

func newJSONEncoder() jsonEncoder {
	e := jsonEncoder{buffer: new(bytes.Buffer)}
	e.encoder = json.NewEncoder(e.buffer)
	e.encoder.SetEscapeHTML(false)
	return e
}

func (e *jsonEncoder) append(out []byte, v any) ([]byte, error) {
	e.buffer.Reset()
	if err := e.encoder.Encode(v); err != nil {
		return out, err
	}
	return append(out, e.buffer.Bytes()[:e.buffer.Len()-1]...), nil
}
