package ca

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"time"

	"skep/cluster"
)

// A node that asks to join as a manager has no certificate yet. So that the leader can
// see that it is reached at the address it gives, it answers there with the key of its
// certificate request, in a certificate that says nothing else.

// AnswerTLS is the configuration with which the holder of a request's key answers.
func AnswerTLS(random io.Reader, keyPEM []byte, now func() time.Time, alpn ...string) (*tls.Config, error) {
	key, err := parseKey(keyPEM)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: now().Add(-time.Hour), NotAfter: now().Add(time.Hour)}
	der, err := x509.CreateCertificate(random, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("make a certificate to answer with: %w", err)
	}
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Time:                   now,
		NextProtos:             alpn,
		Certificates:           []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		SessionTicketsDisabled: true,
	}, nil
}

// ReachTLS is the configuration for a connection that only the holder of the key in a
// certificate request can answer. Nothing is shown to it, and nothing else is believed.
func ReachTLS(requestPEM []byte, alpn ...string) (*tls.Config, error) {
	want, err := requestKey(requestPEM)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		NextProtos:         alpn,
		InsecureSkipVerify: true, // The key is all that counts, and VerifyConnection looks at it.
		VerifyConnection: func(state tls.ConnectionState) error {
			got, ok := state.PeerCertificates[0].PublicKey.(*ecdsa.PublicKey)
			if !ok || !got.Equal(want) {
				return fmt.Errorf("another node answers there: %w", cluster.ErrDenied)
			}
			return nil
		},
		SessionTicketsDisabled: true,
	}, nil
}
