package peers

import (
	"net"
	"testing"
)

func TestTrackedListener_CloseAllBreaksAndRefuses(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := trackedListener{listener, newTrackedConns()}
	client, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := l.Accept(); err != nil {
		t.Fatal(err)
	}
	l.closeAll()
	if _, err := client.Read(make([]byte, 1)); err == nil {
		t.Error("the connection still works")
	}
	if late, err := net.Dial("tcp", listener.Addr().String()); err == nil {
		late.Close()
		t.Error("a new connection is taken")
	}
	if _, err := l.Accept(); err == nil {
		t.Error("Accept goes on")
	}
}
