package dns

import (
	"errors"
	"fmt"
	"net"
	"os"

	"skep/agent/network/helper"
	"skep/cluster"
)

// At its door the process of names hands its sockets to its successor, beside what all helpers say
// there.

// handed is how many pairs of sockets come with a message.
const handed = helper.MostFiles / 2

// doorAsk is what is said at the door: nothing asks who is there.
type doorAsk struct {
	// Take asks for the sockets, and Taken says that they are served.
	Take  bool `cbor:"1,keyasint,omitempty"`
	Taken bool `cbor:"2,keyasint,omitempty"`
}

// doorAnswer is what comes back; to Take several, as long as there is More.
type doorAnswer struct {
	PID     int          `cbor:"1,keyasint"`
	Build   string       `cbor:"2,keyasint"`
	Sockets []doorSocket `cbor:"3,keyasint,omitempty"`
	More    bool         `cbor:"4,keyasint,omitempty"`
}

type doorSocket struct {
	At   storedListen `cbor:"1,keyasint"`
	Link int          `cbor:"2,keyasint,omitempty"`
}

// takeOver takes the sockets of whoever answers from the file. done tells it that they are served.
// One that is there and doesn't answer is killed: its sockets are in the way.
func takeOver(file string) (taken []*sockets, done func() error, err error) {
	nobody := func() error { return nil }
	conn, err := helper.Knock(file)
	if err != nil {
		return nil, nobody, nil // Nobody is there.
	}
	taken, err = takeSockets(conn)
	if err == nil {
		return taken, func() error {
			defer conn.Close()
			return helper.Say(conn, doorAsk{Taken: true}, nil)
		}, nil
	}
	for _, k := range taken {
		k.stop(0)
	}
	err = fmt.Errorf("take over from the process before: %w", err)
	return nil, nobody, errors.Join(err, helper.KillPeer(conn), conn.Close())
}

func takeSockets(conn *net.UnixConn) (taken []*sockets, err error) {
	if err := helper.Say(conn, doorAsk{Take: true}, nil); err != nil {
		return nil, err
	}
	for more := true; more; {
		var answer doorAnswer
		files, err := helper.Hear(conn, &answer)
		if err != nil {
			return taken, err
		}
		if len(files) != 2*len(answer.Sockets) {
			helper.CloseAll(files)
			return taken, cluster.Errorf(cluster.ErrInvalid, "%d files for %d pairs of sockets", len(files), len(answer.Sockets))
		}
		for i, s := range answer.Sockets {
			k, err := adopt(Listen(s.At), s.Link, files[2*i], files[2*i+1])
			if err != nil {
				helper.CloseAll(files[2*i+2:])
				return taken, err
			}
			taken = append(taken, k)
		}
		more = answer.More
	}
	return taken, nil
}

// handOver gives sockets away, and tells whether they are another's now.
func handOver(conn *net.UnixConn, build string, all []*sockets) (bool, error) {
	for first := true; first || len(all) > 0; first = false {
		answer := doorAnswer{PID: os.Getpid(), Build: build}
		part := all[:min(handed, len(all))]
		all = all[len(part):]
		answer.More = len(all) > 0
		var files []int
		for _, k := range part {
			packets, conns, err := k.files()
			if err != nil {
				helper.CloseAll(files)
				return false, err
			}
			answer.Sockets = append(answer.Sockets, doorSocket{storedListen(k.at), k.link})
			files = append(files, packets, conns)
		}
		err := helper.Say(conn, answer, files)
		helper.CloseAll(files)
		if err != nil {
			return false, err
		}
	}
	var taken doorAsk
	_, err := helper.Hear(conn, &taken)
	return err == nil && taken.Taken, err
}
