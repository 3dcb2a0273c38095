package docker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/client"

	"skep/cluster"
)

// stated is an error whose text is the engine's, for users to see as they know
// it, and whose kind is ours.
type stated struct {
	text string
	kind error
}

func (e stated) Error() string { return e.text }
func (e stated) Unwrap() error { return e.kind }

// said returns an error of a kind with a text.
func said(kind error, format string, args ...any) error {
	return stated{text: fmt.Sprintf(format, args...), kind: kind}
}

// prefix is what the client puts before the engine's own words.
const prefix = "Error response from daemon: "

// explain translates an error of the client: what only means that the engine
// doesn't answer at present becomes cluster.ErrUnavailable, what isn't there
// cluster.ErrNotFound.
func explain(err error) error {
	if err == nil {
		return nil
	}
	text := strings.TrimPrefix(err.Error(), prefix)
	var network net.Error
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case client.IsErrConnectionFailed(err), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF),
		errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, net.ErrClosed),
		cerrdefs.IsUnavailable(err), errors.Is(err, context.DeadlineExceeded), errors.As(err, &network):
		return stated{text: "the engine does not answer: " + text, kind: cluster.ErrUnavailable}
	case cerrdefs.IsNotFound(err):
		return stated{text: text, kind: cluster.ErrNotFound}
	case cerrdefs.IsInvalidArgument(err):
		return stated{text: text, kind: cluster.ErrInvalid}
	}
	return stated{text: text, kind: err}
}
