package helper

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"skep/cluster"
)

// A helper has a door, a socket beside its file, at which it says who it is. It is a socket of packets,
// so that each message comes with the files that were sent with it.

const (
	// DoorLimit is how long the one who is asked may take: longer, and it hangs.
	DoorLimit = 2 * time.Second
	// largestAnswer is the most bytes of a message at the door, and MostFiles how many come with one:
	// the kernel takes 253.
	largestAnswer, MostFiles = 64 << 10, 200
	// lockLimit bounds the wait for whoever is just taking over, and lockAgain is how often it is tried.
	lockLimit, lockAgain = 10 * time.Second, 50 * time.Millisecond
)

// Who is what a helper answers to an empty question.
type Who struct {
	PID   int    `cbor:"1,keyasint"`
	Build string `cbor:"2,keyasint"`
}

// inDir runs use with a short name of a path: the address of a socket has room for 107 bytes.
func inDir(path string, use func(short string) error) error {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return use(fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path)))
}

func doorOf(file string) string { return file + ".door" }

// Knock connects to the door of whoever answers from the file.
func Knock(file string) (conn *net.UnixConn, err error) {
	err = inDir(doorOf(file), func(short string) error {
		conn, err = net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: short, Net: "unixpacket"})
		return err
	})
	if err != nil {
		return nil, err
	}
	return conn, conn.SetDeadline(time.Now().Add(DoorLimit))
}

// OpenDoor makes the door ours, whoever's it was.
func OpenDoor(file string) (l *net.UnixListener, err error) {
	beside := doorOf(file) + ".new"
	if err := os.Remove(beside); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	err = inDir(beside, func(short string) error {
		l, err = net.ListenUnix("unixpacket", &net.UnixAddr{Name: short, Net: "unixpacket"})
		return err
	})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false) // It may be a successor's by then.
	if err := errors.Join(os.Chmod(beside, 0o600), os.Rename(beside, doorOf(file))); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// Say writes a message, and sends files with it.
func Say(conn *net.UnixConn, v any, files []int) error {
	data, err := cluster.Encode(v)
	if err != nil {
		return err
	}
	var rights []byte
	if len(files) > 0 {
		rights = unix.UnixRights(files...)
	}
	_, _, err = conn.WriteMsgUnix(data, rights, nil)
	return err
}

// Hear reads a message into v, and the files that came with it, which are the caller's.
func Hear(conn *net.UnixConn, v any) (files []int, err error) {
	data, rights := make([]byte, largestAnswer), make([]byte, unix.CmsgSpace(4*MostFiles))
	n, rn, flags, _, err := conn.ReadMsgUnix(data, rights)
	if err != nil {
		return nil, err
	}
	messages, err := unix.ParseSocketControlMessage(rights[:rn])
	for _, m := range messages {
		if more, err := unix.ParseUnixRights(&m); err == nil {
			files = append(files, more...)
		}
	}
	if flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		err = errors.Join(err, cluster.Errorf(cluster.ErrInvalid, "a message at the door is too large"))
	}
	if err = errors.Join(err, cluster.Decode(data[:n], v)); err != nil {
		CloseAll(files)
		return nil, err
	}
	return files, nil
}

// CloseAll closes files.
func CloseAll(files []int) {
	for _, fd := range files {
		_ = unix.Close(fd)
	}
}

// WhoIs asks who answers from the file.
func WhoIs(file string) (who Who, err error) {
	conn, err := Knock(file)
	if err != nil {
		return who, err
	}
	defer conn.Close()
	if err := Say(conn, struct{}{}, nil); err != nil {
		return who, err
	}
	_, err = Hear(conn, &who)
	return who, err
}

// KillPeer ends the process that a connection leads to.
func KillPeer(conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		var peer *unix.Ucred
		if peer, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); failed == nil {
			failed = unix.Kill(int(peer.Pid), unix.SIGKILL)
		}
	})
	return errors.Join(err, failed)
}

// End has a helper end at once, and removes its file and all beside it.
func End(file string) error {
	var failed error
	for _, path := range []string{file, doorOf(file), file + ".lock", file + ".log"} {
		if path == doorOf(file) { // A Keeper sees by now that none is wanted.
			if conn, err := Knock(file); err == nil {
				failed = errors.Join(failed, KillPeer(conn), conn.Close())
			}
		}
		if err := os.Remove(path); !errors.Is(err, os.ErrNotExist) {
			failed = errors.Join(failed, err)
		}
	}
	return failed
}

// Lock waits until nobody else has the file locked. The lock goes with the process.
func Lock(ctx context.Context, path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, lockLimit)
	defer cancel()
	for {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return file, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) || !cluster.Sleep(ctx, lockAgain) {
			_ = file.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
	}
}

// Answer says at the door who this is, until it is closed.
func Answer(door *net.UnixListener, build string) {
	for {
		conn, err := door.AcceptUnix()
		if err != nil {
			return
		}
		_ = conn.SetDeadline(time.Now().Add(DoorLimit))
		if _, err := Hear(conn, &struct{}{}); err == nil {
			_ = Say(conn, Who{PID: os.Getpid(), Build: build}, nil)
		}
		_ = conn.Close()
	}
}
