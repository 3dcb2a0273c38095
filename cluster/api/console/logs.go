package console

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// defaultTail is how many lines a page of logs begins with, and maxTail how many at most.
	defaultTail, maxTail = 200, 5000
	// logWait is how long a page waits for the lines that there are.
	logWait = 5 * time.Second
	// maxLine is how much of a line is shown.
	maxLine = 16 << 10
)

// lineShown is a line of a task's log.
type lineShown struct {
	Time   string // with the date
	Clock  string
	Place  string // web.1
	Node   string
	Stderr bool
	Text   string
}

// logAsk is what of logs is asked for.
type logAsk struct {
	Service          linkShown
	Tail             int
	Filter, Since    string
	Of               string // slot, task or node that the lines are of; empty for all
	Follow, Download string // addresses
}

// logPage is a page of logs.
type logPage struct {
	logAsk
	Lines []lineShown
	Why   string // why there are no more
}

// logRequest reads what a request wants.
func (c *Console) logRequest(l *look) (logAsk, error) {
	s, err := l.pathService()
	if err != nil {
		return logAsk{}, err
	}
	ask := logAsk{Service: linkShown{s.ID, s.Spec.Name}, Tail: defaultTail, Filter: l.filter(), Since: l.query.Get("since"), Of: strings.TrimSpace(l.query.Get("of"))}
	if n, err := strconv.Atoi(l.query.Get("tail")); err == nil && n > 0 {
		ask.Tail = min(n, maxTail)
	}
	query := url.Values{"q": {ask.Filter}, "of": {ask.Of}, "tail": {strconv.Itoa(ask.Tail)}, "since": {ask.Since}}.Encode()
	ask.Follow = Root + "services/" + s.ID + "/logs/live?" + query
	ask.Download = Root + "services/" + s.ID + "/logs/download?" + url.Values{"q": {ask.Filter}, "of": {ask.Of}, "since": {ask.Since}}.Encode()
	return ask, nil
}

// serveLogs shows the last lines of a service's tasks.
func (c *Console) serveLogs(w http.ResponseWriter, r *http.Request) {
	c.withLogs(w, r, func(l *look, ask logAsk) {
		shown := logPage{logAsk: ask}
		ctx, cancel := context.WithTimeout(r.Context(), logWait)
		defer cancel()
		err := c.readLogs(ctx, l, ask, ask.Tail, false, func(line lineShown) error {
			shown.Lines = append(shown.Lines, line)
			if n := len(shown.Lines); n > maxTail {
				shown.Lines = shown.Lines[n-maxTail:]
			}
			return nil
		})
		if err != nil {
			shown.Why = sentence(err.Error())
		}
		p := page{Title: "Logs of " + ask.Service.Name, Nav: "services", Sections: []section{{ID: "logs", Wide: true, Template: "logs", Data: shown}}}
		body, err := c.render(l, p, nil)
		if err != nil {
			c.Refuse(w, http.StatusInternalServerError, "This page can't be made.")
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		_, _ = w.Write(body) // The browser may have gone.
	})
}

// followLogs sends lines as they come, each as the HTML of a row.
func (c *Console) followLogs(w http.ResponseWriter, r *http.Request) {
	c.withLogs(w, r, func(l *look, ask logAsk) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("Cache-Control", "no-store")
		control := http.NewResponseController(w)
		if _, err := fmt.Fprint(w, ": hello\n\n"); err != nil || control.Flush() != nil {
			return
		}
		err := c.readLogs(r.Context(), l, ask, ask.Tail, true, func(line lineShown) error {
			var row bytes.Buffer
			if err := c.templates.ExecuteTemplate(&row, "line", line); err != nil {
				return err
			}
			if _, err := fmt.Fprintf(w, "data: %s\n\n", strings.NewReplacer("\n", " ", "\r", " ").Replace(row.String())); err != nil {
				return err
			}
			return control.Flush()
		})
		if r.Context().Err() == nil {
			why := "no task is left"
			if err != nil {
				why = err.Error()
			}
			_, _ = fmt.Fprintf(w, "event: end\ndata: %s\n\n", template.HTMLEscapeString(sentence(why))) // The browser may have gone.
		}
	})
}

// downloadLogs sends all lines as text.
func (c *Console) downloadLogs(w http.ResponseWriter, r *http.Request) {
	c.withLogs(w, r, func(l *look, ask logAsk) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Content-Disposition", fmt.Sprintf(`attachment; filename="%s.log"`, short(ask.Service.ID)))
		err := c.readLogs(r.Context(), l, ask, 0, false, func(line lineShown) error {
			_, err := fmt.Fprintf(w, "%s %s@%s %s\n", line.Time, line.Place, line.Node, line.Text)
			return err
		})
		if err != nil {
			_, _ = fmt.Fprintf(w, "skep: %v\n", err) // Whoever reads it mustn't take a part for the whole.
		}
	})
}

func (c *Console) withLogs(w http.ResponseWriter, r *http.Request, show func(*look, logAsk)) {
	if c.Manager() == nil {
		c.Refuse(w, http.StatusServiceUnavailable, c.NotManager().Error())
		return
	}
	l, err := c.look(r)
	if err == nil {
		defer l.done()
		var ask logAsk
		if ask, err = c.logRequest(l); err == nil {
			show(l, ask)
			return
		}
	}
	c.Refuse(w, http.StatusNotFound, err.Error())
}

// readLogs reads a service's logs by the API, and calls emit for each line that fits the filter.
func (c *Console) readLogs(ctx context.Context, l *look, ask logAsk, tail int, follow bool, emit func(lineShown) error) error {
	query := url.Values{"stdout": {"1"}, "stderr": {"1"}, "timestamps": {"1"}, "details": {"1"}}
	if tail > 0 {
		query.Set("tail", strconv.Itoa(tail))
	}
	if follow {
		query.Set("follow", "1")
	}
	if ask.Since != "" {
		query.Set("since", ask.Since)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "/services/"+url.PathEscape(ask.Service.ID)+"/logs?"+query.Encode(), nil)
	if err != nil {
		return fmt.Errorf("ask for logs: %w", err)
	}
	reader := &logReader{header: http.Header{}, emit: func(stderr bool, text string) error {
		line := l.line(stderr, text)
		if ask.Of != "" && line.Place != ask.Of && line.Node != ask.Of || !fits(ask.Filter, line.Text, line.Place, line.Node) {
			return nil
		}
		return emit(line)
	}}
	c.API.ServeHTTP(reader, request)
	return errors.Join(reader.failed, reader.refusal())
}

// line reads a line with its time and details.
func (l *look) line(stderr bool, text string) lineShown {
	at, rest, _ := strings.Cut(text, " ")
	details, rest, found := strings.Cut(rest, " ")
	line := lineShown{Stderr: stderr, Text: strings.TrimRight(rest, "\r\n")}
	if !found {
		line.Text = text
		return line
	}
	if when, err := time.Parse(time.RFC3339Nano, at); err == nil {
		line.Time = when.UTC().Format("2006-01-02 15:04:05.000")
		line.Clock = when.UTC().Format("15:04:05.000")
	}
	of := map[string]string{}
	for pair := range strings.SplitSeq(details, ",") {
		key, value, _ := strings.Cut(pair, "=")
		name, err := url.QueryUnescape(key)
		if err == nil {
			of[name], _ = url.QueryUnescape(value) // What can't be read is empty.
		}
	}
	line.Node = l.nodeName(of["com.docker.swarm.node.id"])
	line.Place = short(of["com.docker.swarm.task.id"])
	if task := l.view.Task(of["com.docker.swarm.task.id"]); task != nil && task.Slot > 0 {
		line.Place = plain(task.Slot)
	}
	line.Text = cutText(line.Text, maxLine)
	return line
}

// cutText is the beginning of a text that is too long.
func cutText(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + " …"
}

// logReader takes what the API answers to a question for logs, as it comes: frames of a
// line each, or lines of a terminal.
type logReader struct {
	header http.Header
	status int
	emit   func(stderr bool, text string) error
	buffer []byte
	failed error
}

func (r *logReader) Header() http.Header { return r.header }

func (r *logReader) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
}

// Flush is there, so that lines come one by one.
func (r *logReader) Flush() {}

func (r *logReader) Write(data []byte) (int, error) {
	r.WriteHeader(http.StatusOK)
	if r.failed != nil {
		return 0, r.failed
	}
	r.buffer = append(r.buffer, data...)
	if r.status != http.StatusOK {
		r.buffer = r.buffer[:min(len(r.buffer), maxLine)]
		return len(data), nil
	}
	rest := r.buffer
	for r.failed == nil {
		frame, stderr, next, ok := r.next(rest)
		if !ok {
			break
		}
		rest = next
		r.failed = r.emit(stderr, frame)
	}
	r.buffer = slices.Clone(rest)
	if r.failed != nil {
		return 0, r.failed
	}
	return len(data), nil
}

// maxFrame is how long a line may be that one waits for the end of.
const maxFrame = 4 << 20

// next cuts the first line off; false when it isn't whole yet.
func (r *logReader) next(data []byte) (text string, stderr bool, rest []byte, ok bool) {
	if strings.Contains(r.header.Get("Content-Type"), "multiplexed") {
		if len(data) < 8 {
			return "", false, data, false
		}
		n := int(binary.BigEndian.Uint32(data[4:8]))
		if n > maxFrame {
			r.failed = fmt.Errorf("read logs: a line of %d bytes", n)
			return "", false, data, false
		}
		if len(data) < 8+n {
			return "", false, data, false
		}
		return string(data[8 : 8+n]), data[0] == 2, data[8+n:], true
	}
	end := bytes.IndexByte(data, '\n')
	if end < 0 {
		if len(data) > maxFrame {
			end = len(data) - 1
		} else {
			return "", false, data, false
		}
	}
	return string(data[:end+1]), false, data[end+1:], true
}

// refusal is the error that the API answered with, if it did.
func (r *logReader) refusal() error {
	if r.status == http.StatusOK || r.status == 0 {
		return nil
	}
	return refusalOf(r.status, r.buffer)
}
