package ca

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/pem"
	"fmt"

	"skep/cluster"
)

// maxPEM bounds what is parsed; a chain of two certificates has 1,500 bytes.
const maxPEM = 64 << 10

// parseCerts reads a row of PEM certificates and nothing else.
func parseCerts(text []byte) ([]*x509.Certificate, error) {
	if len(text) > maxPEM {
		return nil, fmt.Errorf("parse certificates: more than %d bytes: %w", maxPEM, cluster.ErrInvalid)
	}
	var certs []*x509.Certificate
	for rest := bytes.TrimSpace(text); len(rest) > 0; rest = bytes.TrimSpace(rest) {
		block, after := onlyBlock(rest, certBlock)
		if block == nil {
			return nil, fmt.Errorf("parse certificates: not a PEM block %s: %w", certBlock, cluster.ErrInvalid)
		}
		cert, err := x509.ParseCertificate(block)
		if err != nil {
			return nil, fmt.Errorf("parse certificate: %v: %w", err, cluster.ErrInvalid)
		}
		certs = append(certs, cert)
		rest = after
	}
	if len(certs) == 0 {
		return nil, fmt.Errorf("parse certificates: none there: %w", cluster.ErrInvalid)
	}
	return certs, nil
}

// parseKey reads one ECDSA P-256 key. Its errors don't quote the parser's, which
// might quote the key.
func parseKey(text []byte) (*ecdsa.PrivateKey, error) {
	block, rest := onlyBlock(bytes.TrimSpace(text), keyBlock)
	if block == nil || len(bytes.TrimSpace(rest)) > 0 {
		return nil, fmt.Errorf("not one PEM block %s: %w", keyBlock, cluster.ErrInvalid)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block)
	if err != nil {
		return nil, fmt.Errorf("malformed private key: %w", cluster.ErrInvalid)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, fmt.Errorf("not an ECDSA P-256 key: %w", cluster.ErrInvalid)
	}
	return key, nil
}

func marshalKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode private key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: keyBlock, Bytes: der}), nil
}

// onlyBlock takes a block of that type, without headers, off the very beginning
// of text; nil when there is something else.
func onlyBlock(text []byte, kind string) (der, rest []byte) {
	if !bytes.HasPrefix(text, []byte("-----BEGIN "+kind+"-----")) {
		return nil, text
	}
	block, rest := pem.Decode(text)
	if block == nil || block.Type != kind || len(block.Headers) > 0 || len(block.Bytes) == 0 {
		return nil, text
	}
	return block.Bytes, rest
}
