package docker

import (
	"context"
	"net"

	"skep/agent"
)

var _ agent.EngineDialer = (*Driver)(nil)

// DialEngine opens a connection to the engine.
func (d *Driver) DialEngine(ctx context.Context) (net.Conn, error) {
	conn, err := d.client.Dialer()(ctx)
	if err != nil {
		return nil, explain(err)
	}
	return conn, nil
}
