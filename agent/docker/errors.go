package docker

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/client"

	"skep/cluster"
)

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
		return cluster.Errorf(cluster.ErrUnavailable, "the engine does not answer: %s", text)
	case cerrdefs.IsNotFound(err):
		return cluster.Errorf(cluster.ErrNotFound, "%s", text)
	case cerrdefs.IsInvalidArgument(err):
		return cluster.Errorf(cluster.ErrInvalid, "%s", text)
	}
	return cluster.Errorf(err, "%s", text)
}
