package agent

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"skep/cluster"
)

// Whatever a container writes, its log goes out in frames that managers take.
func TestCut_ChunksFitInAFrame(t *testing.T) {
	long := cluster.LogLine{Data: bytes.Repeat([]byte("x"), 3*cluster.MaxAgentFrame)}
	for what, lines := range map[string][]cluster.LogLine{
		"empty":           make([]cluster.LogLine, 10_000),
		"long":            {{Data: []byte("before")}, long, {Data: []byte("after")}},
		"long attributes": {{Data: []byte("a"), Attrs: map[string]string{"k": strings.Repeat("v", cluster.MaxAgentFrame)}}, {Data: []byte("b")}},
		"many attributes": slicesOf(3000, cluster.LogLine{Data: []byte("a"), Attrs: map[string]string{"k": strings.Repeat("v", 10_000)}}),
		"as the engine's": slicesOf(300, cluster.LogLine{Data: bytes.Repeat([]byte("y"), 16<<10)}),
	} {
		t.Run(what, func(t *testing.T) {
			var want, got bytes.Buffer
			for _, line := range lines {
				want.Write(line.Data)
			}
			for len(lines) > 0 {
				var chunk []cluster.LogLine
				chunk, lines, _ = cut(lines, maxChunk)
				data, err := cluster.Encode(cluster.FromAgent{Logs: &cluster.LogChunk{ID: 1, Lines: chunk}, EngineAway: true, Lease: 1 << 60})
				if err != nil || len(data) > cluster.MaxAgentFrame/2 || len(chunk) == 0 {
					t.Fatalf("a chunk of %d lines has %d bytes, %v", len(chunk), len(data), err)
				}
				for _, line := range chunk {
					got.Write(line.Data)
				}
			}
			if !bytes.Equal(got.Bytes(), want.Bytes()) {
				t.Errorf("%d bytes came out of %d", got.Len(), want.Len())
			}
		})
	}
}

func slicesOf(count int, line cluster.LogLine) []cluster.LogLine {
	lines := make([]cluster.LogLine, count)
	for i := range lines {
		lines[i] = line
	}
	return lines
}

// Ten thousand tasks that failed with long reasons are told in frames that managers take.
func TestMailbox_ReportsFitInAFrame(t *testing.T) {
	m := newOutbox()
	for i := range 10_000 {
		m.report(cluster.Report{TaskID: fmt.Sprint("task-", i), Status: cluster.TaskStatus{State: cluster.StateFailed, Message: strings.Repeat("m", 4000), Err: strings.Repeat("e", 4000)}})
	}
	told := 0
	for told < 10_000 {
		message := m.take()
		data, err := cluster.Encode(message)
		if err != nil || len(data) > cluster.MaxAgentFrame/2 || len(message.Reports) == 0 {
			t.Fatalf("a message with %d reports has %d bytes, %v", len(message.Reports), len(data), err)
		}
		told += len(message.Reports)
	}
}
