package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/docker/docker/client"
)

// answerLimit bounds what is read of a node's answer: the status of 100,000 nodes fits.
const answerLimit = 64 << 20

// open sends a request to a path of ours, which is given without its /skep/v1/ (or with a slash
// before it, if it isn't there), and returns the answer, to be read and closed. The Docker client has no call for those
// paths, but its HTTP client already knows the way to the socket. body may be nil; an
// answer whose status isn't 200 is an error. headers are names and values in turn.
func open(ctx context.Context, c client.APIClient, method, path string, body any, headers ...string) (*http.Response, error) {
	host, err := client.ParseHostURL(c.DaemonHost())
	if err != nil {
		return nil, err
	}
	base := "http://skep"
	if host.Scheme == "tcp" {
		base = "http://" + host.Host
	}
	if !strings.HasPrefix(path, "/") {
		path = "/skep/v1/" + path
	}
	var content io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		content = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, base+path, content)
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := c.HTTPClient().Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask %s (is the skep daemon running?): %w", c.DaemonHost(), err)
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		var refusal struct{ Message string }
		if json.NewDecoder(io.LimitReader(resp.Body, answerLimit)).Decode(&refusal) != nil || refusal.Message == "" {
			refusal.Message = resp.Status
		}
		return nil, errors.New("Error response from daemon: " + refusal.Message) //nolint // docker's words
	}
	return resp, nil
}

// ask is open for answers in JSON, which it reads into into.
func ask(ctx context.Context, c client.APIClient, method, path string, body, into any, headers ...string) error {
	resp, err := open(ctx, c, method, path, body, headers...)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(io.LimitReader(resp.Body, answerLimit)).Decode(into); err != nil {
		return fmt.Errorf("read the answer of %s: %w", c.DaemonHost(), err)
	}
	return nil
}

// printJSON is what --json does everywhere.
func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
