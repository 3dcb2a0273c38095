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

type (
	peerKey struct{}
	// credKey has the process that made a connection by a unix socket, a *syscall.Ucred.
	credKey struct{}
)

// withPeer notes whose connection it is: a user of this machine, by its kernel's word.
func withPeer(ctx context.Context, conn net.Conn) context.Context {
	who := "a user by " + conn.LocalAddr().Network()
	if counted, ok := conn.(*counted); ok {
		conn = counted.Conn
	}
	if unix, ok := conn.(*net.UnixConn); ok {
		if cred, err := peerProcess(unix); err == nil {
			who = fmt.Sprintf("uid %d", cred.Uid)
			ctx = context.WithValue(ctx, credKey{}, cred)
		}
	}
	return context.WithValue(ctx, peerKey{}, who)
}

func peerProcess(conn *net.UnixConn) (*syscall.Ucred, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	var peer *syscall.Ucred
	var failed error
	err = raw.Control(func(fd uintptr) {
		peer, failed = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	if err := errors.Join(err, failed); err != nil {
		return nil, err
	}
	return peer, nil
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
