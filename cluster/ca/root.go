package ca

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

const (
	// Backdate is how long before its issue a certificate begins to be valid.
	Backdate = time.Hour

	rootName     = "swarm-ca"
	rootYears    = 20
	digestLength = 50

	certBlock = "CERTIFICATE"
	keyBlock  = "PRIVATE KEY"
)

// Root is the cluster's root certificate; with its key it can issue. It never
// changes after it was made.
type Root struct {
	cert *x509.Certificate
	pem  []byte
	key  crypto.Signer // nil on nodes that only verify
}

// NewRoot makes the root of a new cluster.
func NewRoot(random io.Reader, now time.Time, clusterID string) (*Root, error) {
	if !validName(clusterID) {
		return nil, fmt.Errorf("make root CA: cluster ID %q: %w", clusterID, cluster.ErrInvalid)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), random)
	if err != nil {
		return nil, fmt.Errorf("make key of root CA: %w", err)
	}
	serial, err := newSerial(random)
	if err != nil {
		return nil, fmt.Errorf("make root CA: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: rootName, Organization: []string{clusterID}},
		NotBefore:             now.Add(-Backdate),
		NotAfter:              now.AddDate(rootYears, 0, 0),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLen:            1, // leaves room for a successor signed by this root
	}
	der, err := x509.CreateCertificate(random, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make root CA: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("make root CA: %w", err)
	}
	root := trust(cert)
	root.key = key
	return root, nil
}

// ParseRoot reads a root back. Without keyPEM the root can verify but not issue.
func ParseRoot(certPEM, keyPEM []byte) (*Root, error) {
	certs, err := parseCerts(certPEM)
	if err != nil {
		return nil, fmt.Errorf("parse root CA: %w", err)
	}
	if len(certs) != 1 {
		return nil, fmt.Errorf("parse root CA: %d certificates, want one: %w", len(certs), cluster.ErrInvalid)
	}
	if !selfSigned(certs[0]) {
		return nil, fmt.Errorf("parse root CA: not a self-signed CA certificate: %w", cluster.ErrInvalid)
	}
	root := trust(certs[0])
	if len(keyPEM) == 0 {
		return root, nil
	}
	key, err := parseSigner(keyPEM)
	if err != nil {
		return nil, fmt.Errorf("parse key of root CA: %w", err)
	}
	if !publicKey(key).Equal(certs[0].PublicKey) {
		return nil, fmt.Errorf("parse root CA: key doesn't belong to the certificate: %w", cluster.ErrInvalid)
	}
	root.key = key
	return root, nil
}

// CertPEM gives the certificate, which is public.
func (r *Root) CertPEM() []byte { return bytes.Clone(r.pem) }

// KeyPEM gives the key, which only the store may keep; an error without one.
func (r *Root) KeyPEM() ([]byte, error) {
	if r.key == nil {
		return nil, fmt.Errorf("give key of root CA: %w", errNoKey)
	}
	return marshalKey(r.key)
}

// Cert is the certificate; it must not be changed.
func (r *Root) Cert() *x509.Certificate { return r.cert }

// Digest is what join tokens say of the root.
func (r *Root) Digest() string { return digest(r.cert.Raw) }

// TLSInfo is what the API shows of the CA, of the cluster and of each node that
// has a certificate by it.
func (r *Root) TLSInfo() swarm.TLSInfo {
	return swarm.TLSInfo{
		TrustRoot:           string(r.pem),
		CertIssuerSubject:   bytes.Clone(r.cert.RawSubject),
		CertIssuerPublicKey: bytes.Clone(r.cert.RawSubjectPublicKeyInfo),
	}
}

func (r *Root) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(r.cert)
	return pool
}

var errNoKey = errors.New("this node doesn't have it")

func trust(cert *x509.Certificate) *Root {
	return &Root{cert: cert, pem: pem.EncodeToMemory(&pem.Block{Type: certBlock, Bytes: cert.Raw})}
}

func selfSigned(cert *x509.Certificate) bool {
	return cert.BasicConstraintsValid && cert.IsCA && bytes.Equal(cert.RawSubject, cert.RawIssuer) && cert.CheckSignatureFrom(cert) == nil
}

func digest(der []byte) string {
	sum := sha256.Sum256(der)
	return fmt.Sprintf("%0*s", digestLength, new(big.Int).SetBytes(sum[:]).Text(36))
}

// newSerial gives 128 random bits, which is enough never to meet again.
func newSerial(random io.Reader) (*big.Int, error) {
	var bits [16]byte
	if _, err := io.ReadFull(random, bits[:]); err != nil {
		return nil, fmt.Errorf("read randomness for a serial number: %w", err)
	}
	serial := new(big.Int).SetBytes(bits[:])
	if serial.Sign() == 0 {
		return nil, errors.New("read randomness for a serial number: all zero")
	}
	return serial, nil
}
