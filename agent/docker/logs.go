package docker

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"

	"skep/cluster"
)

const (
	// maxBatch and maxBatchBytes bound what is passed on at a time.
	maxBatch      = 1000
	maxBatchBytes = 256 << 10
	// maxLine is the longest frame that is believed; the engine cuts lines at 16 KiB.
	maxLine = 16 << 20
)

// Logs reads the container's log.
func (d *Driver) Logs(ctx context.Context, taskID string, options cluster.LogOptions, emit func([]cluster.LogLine) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	id, tty, err := d.openLogs(ctx, taskID)
	if err != nil {
		return err
	}
	query := container.LogsOptions{
		ShowStdout: options.Stdout, ShowStderr: options.Stderr,
		Follow: options.Follow, Timestamps: true, Details: true, Tail: "all",
	}
	if options.Tail >= 0 {
		query.Tail = strconv.Itoa(options.Tail)
	}
	if !options.Since.IsZero() {
		query.Since = fmt.Sprintf("%d.%09d", options.Since/1e9, options.Since%1e9)
	}
	body, err := d.client.ContainerLogs(ctx, id, query)
	if err != nil {
		return explain(err)
	}
	defer body.Close()
	next := frames
	if tty {
		next = linesOf
	}
	return copyLines(bufio.NewReaderSize(body, 64<<10), next, emit)
}

// openLogs finds the container and whether it has a terminal, which decides the
// form of the log.
func (d *Driver) openLogs(ctx context.Context, taskID string) (id string, tty bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, d.cfg.Timeout)
	defer cancel()
	if id, err = d.find(ctx, taskID); err != nil {
		return "", false, err
	}
	found, err := d.client.ContainerInspect(ctx, id)
	if err != nil {
		return "", false, explain(err)
	}
	return id, found.Config != nil && found.Config.Tty, nil
}

// copyLines passes on lines in batches: whatever has arrived, without waiting
// for more.
func copyLines(from *bufio.Reader, next func(*bufio.Reader) (cluster.LogLine, error), emit func([]cluster.LogLine) error) error {
	var batch []cluster.LogLine
	size := 0
	for {
		line, err := next(from)
		if err == nil {
			batch = append(batch, line)
			size += len(line.Data)
		}
		if len(batch) > 0 && (err != nil || from.Buffered() == 0 || len(batch) >= maxBatch || size >= maxBatchBytes) {
			if err := emit(batch); err != nil {
				return err
			}
			batch, size = nil, 0
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return explain(err)
		}
	}
}

// frames reads one frame of the multiplexed form: the engine writes one line into
// each.
func frames(from *bufio.Reader) (cluster.LogLine, error) {
	var head [8]byte
	if _, err := io.ReadFull(from, head[:]); err != nil {
		return cluster.LogLine{}, err
	}
	size := binary.BigEndian.Uint32(head[4:])
	if size > maxLine {
		return cluster.LogLine{}, fmt.Errorf("read log: a frame of %d bytes: %w", size, cluster.ErrInvalid)
	}
	data := make([]byte, size)
	if _, err := io.ReadFull(from, data); err != nil {
		return cluster.LogLine{}, err
	}
	if head[0] == 3 { // the engine's own error
		return cluster.LogLine{}, errors.New(strings.TrimSpace(string(data)))
	}
	return parse(data, head[0] == 2)
}

// linesOf reads one line of the raw form, which containers with a terminal have.
func linesOf(from *bufio.Reader) (cluster.LogLine, error) {
	data, err := from.ReadBytes('\n')
	if len(data) == 0 {
		return cluster.LogLine{}, err
	}
	return parse(data, false)
}

// parse splits "time attributes text": attributes are key=value, joined by
// commas, each side escaped, and may be empty.
func parse(data []byte, stderr bool) (cluster.LogLine, error) {
	line := cluster.LogLine{Stderr: stderr}
	stamp, rest, ok := bytes.Cut(data, []byte(" "))
	at, err := time.Parse(time.RFC3339Nano, string(stamp))
	if !ok || err != nil {
		return line, fmt.Errorf("read log: a line without its time: %w", cluster.ErrInvalid)
	}
	line.Time = cluster.At(at)
	attrs, text, ok := bytes.Cut(rest, []byte(" "))
	if !ok {
		return line, fmt.Errorf("read log: a line without its details: %w", cluster.ErrInvalid)
	}
	line.Data = text
	for pair := range strings.SplitSeq(string(attrs), ",") {
		key, value, ok := strings.Cut(pair, "=")
		if !ok {
			continue
		}
		if line.Attrs == nil {
			line.Attrs = make(map[string]string)
		}
		key, _ = url.QueryUnescape(key)
		value, _ = url.QueryUnescape(value)
		line.Attrs[key] = value
	}
	return line, nil
}
