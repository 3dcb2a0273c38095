package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// errSpanning refuses networks that a plugin carries between nodes.
var errSpanning = unsupported("networks of plugins of global scope", "use --driver overlay, which spans nodes")

// maxRefusal bounds what is read of a refusal of the engine.
const maxRefusal = 64 << 10

// noForeignSwarm puts the engine's refusal of a network by a plugin of global scope in our words:
// the engine takes it for its own swarm's, and says to make one, which isn't what is to be done
// here. Which plugins are such only the engine knows.
func noForeignSwarm(answer *http.Response) error {
	if answer.StatusCode != http.StatusServiceUnavailable || answer.Request.Method != http.MethodPost || !strings.HasSuffix(answer.Request.URL.Path, "/networks/create") {
		return nil
	}
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxRefusal))
	if err := errors.Join(err, answer.Body.Close()); err != nil {
		return err
	}
	if bytes.Contains(text, []byte("This node is not a swarm manager")) {
		if text, err = json.Marshal(errorBody{Message: errSpanning.Error()}); err != nil {
			return err
		}
		answer.StatusCode = statusOf(errSpanning)
	}
	answer.Body, answer.ContentLength = io.NopCloser(bytes.NewReader(text)), int64(len(text))
	answer.Header.Set("Content-Length", strconv.Itoa(len(text)))
	return nil
}
