package api

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"syscall"

	"skep/cluster"
)

// actorHeader tells the leader who asked the manager that forwards.
const actorHeader = "Skep-By"

type peerKey struct{}

// withPeer notes whose connection it is: a user of this machine, by its kernel's word.
func withPeer(ctx context.Context, conn net.Conn) context.Context {
	who := "a user by " + conn.LocalAddr().Network()
	if counted, ok := conn.(*counted); ok {
		conn = counted.Conn
	}
	if unix, ok := conn.(*net.UnixConn); ok {
		if uid, err := peerUser(unix); err == nil {
			who = fmt.Sprintf("uid %d", uid)
		}
	}
	return context.WithValue(ctx, peerKey{}, who)
}

func peerUser(conn *net.UnixConn) (uint32, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var peer *syscall.Ucred
	var failed error
	err = raw.Control(func(fd uintptr) {
		peer, failed = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	if err := errors.Join(err, failed); err != nil {
		return 0, err
	}
	return peer.Uid, nil
}

// byUser is the request with who makes it, on this node.
func (s *Server) byUser(r *http.Request) *http.Request {
	who, ok := r.Context().Value(peerKey{}).(string)
	if !ok {
		who = "a user"
	}
	return r.WithContext(cluster.WithActor(r.Context(), who+" on "+s.Hostname))
}

// byForwarder is the request with whom the manager that forwards it names.
func byForwarder(r *http.Request) *http.Request {
	who := r.Header.Get(actorHeader)
	return r.WithContext(cluster.WithActor(r.Context(), who[:min(len(who), maxWord)]))
}
