package console

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"skep/cluster"
)

// maxAnswer is how much of an answer of the API's is kept: the status of 100,000 nodes fits.
const maxAnswer = 64 << 20

// answer takes what the API answers to a request that is made here.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *answer) Header() http.Header { return a.header }

func (a *answer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
}

func (a *answer) Write(data []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	if a.body.Len()+len(data) > maxAnswer {
		return 0, fmt.Errorf("keep an answer: %w", http.ErrContentLength)
	}
	return a.body.Write(data)
}

// call asks the API of this node, which asks the leader where it must. What it refuses is an
// error with its words, and so is an answer that it breaks off.
func (c *Console) call(ctx context.Context, method, path string, body, into any) (err error) {
	var content []byte
	if body != nil {
		if content, err = json.Marshal(body); err != nil {
			return fmt.Errorf("encode request: %w", err)
		}
	}
	request, err := http.NewRequestWithContext(ctx, method, path, bytes.NewReader(content))
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	got := answer{header: http.Header{}}
	defer func() {
		if fault := recover(); fault == http.ErrAbortHandler {
			err = fmt.Errorf("read answer: it was broken off")
		} else if fault != nil {
			panic(fault)
		}
	}()
	c.API.ServeHTTP(&got, request)
	if got.status >= http.StatusMultipleChoices {
		return refusalOf(got.status, got.body.Bytes())
	}
	if into == nil {
		return nil
	}
	if err := json.Unmarshal(got.body.Bytes(), into); err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	return nil
}

// refusalOf is what an answer of the API's says that is no success.
func refusalOf(status int, body []byte) error {
	var refusal struct{ Message string }
	if json.Unmarshal(body, &refusal) != nil || refusal.Message == "" {
		refusal.Message = http.StatusText(status)
	}
	return cluster.Errorf(cluster.ErrPrecondition, "%s", refusal.Message)
}

// writeJSON answers with JSON.
func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // Whoever asked may have gone.
}
