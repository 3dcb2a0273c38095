package ca

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

const (
	// DefaultValidity is how long a node's certificate is valid unless the cluster's
	// spec says otherwise; MinValidity is the least it may say.
	DefaultValidity = 90 * 24 * time.Hour
	MinValidity     = time.Hour

	workerUnit  = "swarm-worker"
	managerUnit = "swarm-manager"
	anyNode     = "skep"

	requestBlock = "CERTIFICATE REQUEST"
	maxRequest   = 16 << 10
)

// NewRequest makes a key, which never leaves the node, and the request for a
// certificate for it. The request names nobody, since no name in it would count.
func NewRequest(random io.Reader) (keyPEM, requestPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), random)
	if err != nil {
		return nil, nil, fmt.Errorf("make key: %w", err)
	}
	der, err := x509.CreateCertificateRequest(random, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, nil, fmt.Errorf("make certificate request: %w", err)
	}
	if keyPEM, err = marshalKey(key); err != nil {
		return nil, nil, err
	}
	return keyPEM, pem.EncodeToMemory(&pem.Block{Type: requestBlock, Bytes: der}), nil
}

// Issue makes a certificate for the key in requestPEM that says its holder is id.
// The caller took id from the store, never from the request. A validity of zero
// means DefaultValidity. The answer is the leaf followed by the root, PEM.
func (r *Root) Issue(random io.Reader, requestPEM []byte, id cluster.Identity, now time.Time, validity time.Duration) ([]byte, error) {
	if r.key == nil {
		return nil, fmt.Errorf("issue certificate: key of root CA: %w", errNoKey)
	}
	unit, ok := roleUnit(id.Role)
	if !ok || !validName(id.NodeID) || !validName(id.ClusterID) {
		return nil, fmt.Errorf("issue certificate for node %q, role %q, cluster %q: %w", id.NodeID, id.Role, id.ClusterID, cluster.ErrInvalid)
	}
	if validity == 0 {
		validity = DefaultValidity
	}
	if validity < MinValidity {
		return nil, fmt.Errorf("issue certificate for %v: at least %v: %w", validity, MinValidity, cluster.ErrInvalid)
	}
	if now.After(r.cert.NotAfter) {
		return nil, fmt.Errorf("issue certificate: root CA expired at %v: %w", r.cert.NotAfter, cluster.ErrPrecondition)
	}
	key, err := requestKey(requestPEM)
	if err != nil {
		return nil, fmt.Errorf("issue certificate: %w", err)
	}
	serial, err := newSerial(random)
	if err != nil {
		return nil, fmt.Errorf("issue certificate: %w", err)
	}
	end := now.Add(validity)
	if end.After(r.cert.NotAfter) {
		end = r.cert.NotAfter
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject: pkix.Name{
			CommonName:         id.NodeID,
			OrganizationalUnit: []string{unit},
			Organization:       []string{id.ClusterID},
		},
		NotBefore:             now.Add(-Backdate),
		NotAfter:              end,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
		DNSNames:              []string{id.NodeID, unit, anyNode},
	}
	der, err := x509.CreateCertificate(random, template, r.cert, key, r.key)
	if err != nil {
		return nil, fmt.Errorf("issue certificate: %w", err)
	}
	return append(pem.EncodeToMemory(&pem.Block{Type: certBlock, Bytes: der}), r.pem...), nil
}

// requestKey checks a request and takes the one thing out of it that counts.
func requestKey(requestPEM []byte) (*ecdsa.PublicKey, error) {
	if len(requestPEM) > maxRequest {
		return nil, fmt.Errorf("certificate request has more than %d bytes: %w", maxRequest, cluster.ErrInvalid)
	}
	der, rest := onlyBlock(bytes.TrimSpace(requestPEM), requestBlock)
	if der == nil || len(bytes.TrimSpace(rest)) > 0 {
		return nil, fmt.Errorf("certificate request is not one PEM block %s: %w", requestBlock, cluster.ErrInvalid)
	}
	request, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, fmt.Errorf("parse certificate request: %v: %w", err, cluster.ErrInvalid)
	}
	key, ok := request.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, fmt.Errorf("certificate request is not for an ECDSA P-256 key: %w", cluster.ErrInvalid)
	}
	switch request.SignatureAlgorithm {
	case x509.ECDSAWithSHA256, x509.ECDSAWithSHA384, x509.ECDSAWithSHA512:
	default:
		return nil, fmt.Errorf("certificate request is signed by %v: %w", request.SignatureAlgorithm, cluster.ErrInvalid)
	}
	if err := request.CheckSignature(); err != nil {
		return nil, fmt.Errorf("check signature of certificate request: %v: %w", err, cluster.ErrInvalid)
	}
	return key, nil
}

// identify reads who a certificate says its holder is. It doesn't verify it.
func identify(cert *x509.Certificate) (cluster.Identity, error) {
	name := cert.Subject
	if len(name.OrganizationalUnit) != 1 || len(name.Organization) != 1 || !validName(name.CommonName) || !validName(name.Organization[0]) {
		return cluster.Identity{}, fmt.Errorf("certificate names no node: %w", cluster.ErrDenied)
	}
	id := cluster.Identity{NodeID: name.CommonName, ClusterID: name.Organization[0]}
	switch name.OrganizationalUnit[0] {
	case workerUnit:
		id.Role = swarm.NodeRoleWorker
	case managerUnit:
		id.Role = swarm.NodeRoleManager
	default:
		return cluster.Identity{}, fmt.Errorf("certificate of node %s names no role: %w", id.NodeID, cluster.ErrDenied)
	}
	return id, nil
}

func roleUnit(role swarm.NodeRole) (string, bool) {
	switch role {
	case swarm.NodeRoleWorker:
		return workerUnit, true
	case swarm.NodeRoleManager:
		return managerUnit, true
	}
	return "", false
}

// validName accepts IDs: what can stand in a certificate and in a DNS name
// without quoting, and isn't one of the names with a meaning of their own.
func validName(id string) bool {
	if id == "" || len(id) > 63 || id == workerUnit || id == managerUnit || id == anyNode {
		return false
	}
	for i, c := range id {
		letter := c >= 'a' && c <= 'z' || c >= '0' && c <= '9'
		if !letter && (c != '-' || i == 0 || i == len(id)-1) {
			return false
		}
	}
	return true
}
