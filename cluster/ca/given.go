package ca

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	"skep/cluster"
)

// A root CA that the user gives may be whatever openssl or cfssl makes: an RSA, ECDSA or
// Ed25519 key as PKCS #8, PKCS #1 or SEC 1, with other blocks and text around, and a
// certificate without extensions but CA:TRUE. Refused, with a reason, are keys that are
// encrypted, since nobody could decrypt them at the next start; RSA keys of less than
// 2048 bits, curves that TLS doesn't have, and signatures with SHA-1, which no node would
// accept; and what Successor refuses. The nodes' own keys are ECDSA P-256 in any case.

const (
	sec1Block   = "EC PRIVATE KEY"
	pkcs1Block  = "RSA PRIVATE KEY"
	sealedBlock = "ENCRYPTED PRIVATE KEY"

	minRSA, maxRSA = 2048, 8192
)

// GivenRoot reads a root CA with its key as the user has them.
func GivenRoot(certText, keyText []byte) (*Root, error) {
	if len(certText) > maxPEM || len(keyText) > maxPEM {
		return nil, fmt.Errorf("parse root CA: more than %d bytes: %w", maxPEM, cluster.ErrInvalid)
	}
	var certs, keys []*pem.Block
	for _, block := range blocks(certText) {
		if block.Type == certBlock {
			certs = append(certs, block)
		}
	}
	for _, block := range blocks(keyText) {
		switch {
		case block.Type == sealedBlock || strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED"):
			return nil, fmt.Errorf("parse key of root CA: it is encrypted: give it decrypted (\"openssl pkey -in FILE\"): %w", cluster.ErrInvalid)
		case slices.Contains([]string{keyBlock, sec1Block, pkcs1Block}, block.Type):
			keys = append(keys, block)
		}
	}
	if len(certs) != 1 {
		return nil, fmt.Errorf("parse root CA: %d PEM blocks %s, want one, of a root CA: %w", len(certs), certBlock, cluster.ErrInvalid)
	}
	if len(keys) != 1 {
		return nil, fmt.Errorf("parse key of root CA: %d PEM blocks with private keys, want one: %w", len(keys), cluster.ErrInvalid)
	}
	cert, err := x509.ParseCertificate(certs[0].Bytes)
	if err != nil {
		return nil, fmt.Errorf("parse root CA: its certificate: %v: %w", err, cluster.ErrInvalid)
	}
	if err := rootlike(cert); err != nil {
		return nil, fmt.Errorf("parse root CA: %w: %w", err, cluster.ErrInvalid)
	}
	key, err := signer(keys[0])
	if err != nil {
		return nil, fmt.Errorf("parse key of root CA: %w", err)
	}
	keyPEM, err := marshalKey(key)
	if err != nil {
		return nil, fmt.Errorf("parse key of root CA: %w", err)
	}
	return ParseRoot(trust(cert).pem, keyPEM)
}

// blocks are the PEM blocks of a text, whatever stands between them.
func blocks(text []byte) []*pem.Block {
	var all []*pem.Block
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			return all
		}
		all, text = append(all, block), rest
	}
}

// rootlike says why a certificate can't be a root CA.
func rootlike(cert *x509.Certificate) error {
	switch {
	case !cert.BasicConstraintsValid || !cert.IsCA:
		return errors.New("the certificate is none of a CA: it needs the extension basicConstraints with CA:TRUE")
	case !bytes.Equal(cert.RawSubject, cert.RawIssuer):
		return fmt.Errorf("the certificate isn't self-signed: it is by %q; give the root CA itself", cert.Issuer)
	case cert.KeyUsage != 0 && cert.KeyUsage&x509.KeyUsageCertSign == 0:
		return errors.New("its key usage lacks certificate signing")
	}
	if err := cert.CheckSignatureFrom(cert); err != nil {
		return fmt.Errorf("check the certificate's signature, %v: %v", cert.SignatureAlgorithm, err)
	}
	return nil
}

// parseSigner reads the key of a root as it is kept: PKCS #8.
func parseSigner(text []byte) (crypto.Signer, error) {
	der, rest := onlyBlock(bytes.TrimSpace(text), keyBlock)
	if der == nil || len(bytes.TrimSpace(rest)) > 0 {
		return nil, fmt.Errorf("not one PEM block %s: %w", keyBlock, cluster.ErrInvalid)
	}
	return signer(&pem.Block{Type: keyBlock, Bytes: der})
}

// signer reads a private key. Its errors don't quote the parser's, which might quote the
// key.
func signer(block *pem.Block) (crypto.Signer, error) {
	var parsed any
	var err error
	switch block.Type {
	case sec1Block:
		parsed, err = x509.ParseECPrivateKey(block.Bytes)
	case pkcs1Block:
		parsed, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	default:
		parsed, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	}
	if err != nil {
		return nil, fmt.Errorf("malformed, or of a kind that TLS doesn't have: want RSA, ECDSA on P-256, P-384 or P-521, or Ed25519: %w", cluster.ErrInvalid)
	}
	switch key := parsed.(type) {
	case *rsa.PrivateKey:
		if bits := key.N.BitLen(); bits < minRSA || bits > maxRSA {
			return nil, fmt.Errorf("RSA key of %d bits: want %d to %d: %w", bits, minRSA, maxRSA, cluster.ErrInvalid)
		}
		return key, nil
	case *ecdsa.PrivateKey:
		if key.Curve == elliptic.P224() {
			return nil, fmt.Errorf("ECDSA key on P-224: want P-256, P-384 or P-521: %w", cluster.ErrInvalid)
		}
		return key, nil
	case ed25519.PrivateKey:
		return key, nil
	}
	return nil, fmt.Errorf("a key of the kind %T can't sign certificates: want RSA, ECDSA or Ed25519: %w", parsed, cluster.ErrInvalid)
}

// publicKey is the public part, which all kinds can compare.
func publicKey(key crypto.Signer) interface{ Equal(crypto.PublicKey) bool } {
	return key.Public().(interface{ Equal(crypto.PublicKey) bool })
}
