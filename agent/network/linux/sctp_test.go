package linux_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"time"
)

// Kernels may have no sockets of SCTP where netfilter knows it: the beginning of an association (RFC 9260), an INIT
// and what answers it, is made by hand.
const (
	ipSCTP         = "ip4:132"
	sctpInit       = 1
	sctpInitAck    = 2
	sctpCookie     = 7
	sctpHeader     = 12
	sctpChunk      = 20
	sctpOwnTag     = 0x5eb0
	sctpFirstBytes = sctpHeader + sctpChunk + 4
)

// sctpPacket is an INIT or an INIT ACK whose cookie is a text.
func sctpPacket(from, to uint16, tag uint32, kind byte, text string) []byte {
	p := make([]byte, sctpFirstBytes, sctpFirstBytes+len(text)+3)
	binary.BigEndian.PutUint16(p, from)
	binary.BigEndian.PutUint16(p[2:], to)
	binary.BigEndian.PutUint32(p[4:], tag)
	p[12] = kind
	binary.BigEndian.PutUint16(p[14:], uint16(sctpChunk+4+len(text)))
	binary.BigEndian.PutUint32(p[16:], sctpOwnTag)
	binary.BigEndian.PutUint32(p[20:], 1<<16)
	binary.BigEndian.PutUint16(p[24:], 1)
	binary.BigEndian.PutUint16(p[26:], 1)
	binary.BigEndian.PutUint16(p[32:], sctpCookie)
	binary.BigEndian.PutUint16(p[34:], uint16(4+len(text)))
	p = append(p, text...)
	for len(p)%4 != 0 {
		p = append(p, 0)
	}
	binary.LittleEndian.PutUint32(p[8:], sctpSum(p))
	return p
}

func sctpSum(packet []byte) uint32 {
	p := append([]byte(nil), packet...)
	clear(p[8:12])
	return crc32.Checksum(p, crc32.MakeTable(crc32.Castagnoli))
}

// readSCTP reads a packet with a right checksum: its ports, the tag that its sender wants, its kind and text.
func readSCTP(p []byte) (from, to uint16, tag uint32, kind byte, text string, err error) {
	if len(p) < sctpFirstBytes || binary.LittleEndian.Uint32(p[8:]) != sctpSum(p) {
		return 0, 0, 0, 0, "", errors.New("no packet of SCTP, or a wrong checksum")
	}
	size := int(binary.BigEndian.Uint16(p[34:])) - 4
	if size < 0 || sctpFirstBytes+size > len(p) {
		return 0, 0, 0, 0, "", errors.New("a cookie that is too long")
	}
	return binary.BigEndian.Uint16(p), binary.BigEndian.Uint16(p[2:]), binary.BigEndian.Uint32(p[16:]), p[12], string(p[sctpFirstBytes : sctpFirstBytes+size]), nil
}

// serveSCTP answers who begins an association with port 80 with a name and the caller's address.
func serveSCTP(name string) error {
	conn, err := net.ListenPacket(ipSCTP, "0.0.0.0")
	if err != nil {
		return err
	}
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			if port, to, tag, kind, _, err := readSCTP(buf[:n]); err == nil && to == 80 && kind == sctpInit {
				_, _ = conn.WriteTo(sctpPacket(80, port, tag, sctpInitAck, fmt.Sprint(name, " ", from)), from)
			}
		}
	}()
	return nil
}

// askSCTP begins an association, and waits for a second at most for what answers.
func askSCTP(addr string) (string, error) {
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return "", err
	}
	conn, err := net.Dial(ipSCTP, to.Addr().String())
	if err != nil {
		return "", err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	own := uint16(1<<15 + rand.IntN(1<<14))
	if _, err := conn.Write(sctpPacket(own, to.Port(), 0, sctpInit, "")); err != nil {
		return "", err
	}
	buf := make([]byte, 1500)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return "", err
		}
		if header := int(buf[0]&0xf) * 4; buf[0]>>4 == 4 && header < n { // Connected sockets are given it, too.
			if from, port, _, kind, text, err := readSCTP(buf[header:n]); err == nil && from == to.Port() && port == own && kind == sctpInitAck {
				return strings.TrimSpace(text), nil
			}
		}
	}
}
