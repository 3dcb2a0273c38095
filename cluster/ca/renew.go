package ca

import (
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"io"
	"time"
)

// RenewAt says when a certificate should be renewed: at random between 50 % and
// 80 % of its life, so that the nodes of a cluster don't all come at once and
// that there is time to try again. Life counts from the issue, without Backdate.
// It panics when random fails.
func RenewAt(cert *x509.Certificate, random io.Reader) time.Time {
	issued := cert.NotBefore.Add(Backdate)
	if !issued.Before(cert.NotAfter) {
		issued = cert.NotBefore // not one of ours
	}
	life := cert.NotAfter.Sub(issued)
	return issued.Add(life/2 + Part(life/10*3, random))
}

// Part is a random part of d, so that many who wait for the same don't come at once.
// It panics when random fails.
func Part(d time.Duration, random io.Reader) time.Duration {
	var bits [8]byte
	if _, err := io.ReadFull(random, bits[:]); err != nil {
		panic(fmt.Sprintf("read randomness for a renewal time: %v", err))
	}
	share := float64(binary.BigEndian.Uint64(bits[:])>>11) / (1 << 53) // in [0, 1)
	return time.Duration(share * float64(d))
}
