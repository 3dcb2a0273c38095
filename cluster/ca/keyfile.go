package ca

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/crypto/chacha20poly1305"

	"skep/cluster"
)

const (
	keyFileMagic = "skep-node-keys"
	// plainFormat is written as long as it will do.
	plainFormat  = 1
	lockFormat   = 2
	dataKeyBlock = "SKEP DATA KEY"
	lockBlock    = "SKEP KEY LOCK"
	maxKeyFile   = 256 << 10
)

// Keys is what a node must keep to be itself after a restart.
type Keys struct {
	// CertPEM is the certificate chain as Issue made it, KeyPEM its key.
	CertPEM, KeyPEM []byte
	// RootPEM is the cluster's root certificate; two of them while one takes the
	// place of the other.
	RootPEM []byte
	// DataKeys seal what the node writes to disk: the present one first, then those
	// that older records still need.
	DataKeys [][32]byte
	// Lock encrypts key and data keys in the file; none means that they lie there in
	// the clear. LockVersion is the version of the cluster's record that Lock was read
	// from: an older record, which a restart plays again, says nothing new.
	Lock        cluster.UnlockKey
	LockVersion uint64
}

// WithLock gives the keys as they are to be kept from now on, and whether that is
// a change. With another lock comes another data key, made by newKey: the one before
// may be in a copy of the disk, in the clear or under a lock that somebody knows.
func (k Keys) WithLock(lock cluster.UnlockKey, version uint64, newKey func() [32]byte) (Keys, bool) {
	if lock == k.Lock || version <= k.LockVersion {
		return k, false
	}
	if !lock.None() {
		k.DataKeys = append([][32]byte{newKey()}, k.DataKeys...)
	}
	k.Lock, k.LockVersion = lock, version
	return k, true
}

// WithoutOld gives the keys without the data keys that seal nothing any more: all but
// the present one.
func (k Keys) WithoutOld() Keys {
	k.DataKeys = k.DataKeys[:1:1]
	return k
}

// Identity is who the certificate says the node is.
func (k Keys) Identity() (cluster.Identity, error) {
	certs, err := parseCerts(k.CertPEM)
	if err != nil {
		return cluster.Identity{}, err
	}
	return identify(certs[0])
}

// Credentials makes the holder of the identity. It checks everything but the
// certificate's date (see newCredentials).
func (k Keys) Credentials(now func() time.Time) (*Credentials, error) {
	trusted, err := parseRoots(k.RootPEM)
	if err != nil {
		return nil, err
	}
	return newCredentials(trusted, k.CertPEM, k.KeyPEM, now)
}

// String, GoString and LogValue keep the keys out of logs and errors.
func (k Keys) String() string {
	id, err := k.Identity()
	if err != nil {
		return "keys of no node"
	}
	return fmt.Sprintf("keys of node %s", id.NodeID)
}

// GoString is for %#v.
func (k Keys) GoString() string { return k.String() }

// LogValue is for slog.
func (k Keys) LogValue() slog.Value { return slog.StringValue(k.String()) }

var _ slog.LogValuer = Keys{}

// KeyFile is the file that holds a node's Keys. It is text: a line
//
//	skep-node-keys <format> <SHA-256 of all that follows, hexadecimal>
//
// and then PEM blocks in this order: the node's certificate and the root (both
// CERTIFICATE), the node's key (PRIVATE KEY), and one or more SKEP DATA KEY. The sum
// finds damage, not forgery: whoever can write the file has the keys anyway.
//
// That is format 1. Format 2, which is written once the file was locked and during
// a change of the root, may have two roots, and one as certified by the other, after
// the node's certificate. After those comes a block SKEP KEY LOCK: LockVersion (8
// bytes) and, while the file is locked, the blocks that would follow, sealed with
// XChaCha20-Poly1305 under the unlock key, with the certificates and LockVersion as
// associated data.
//
// The file has mode 0600 and is replaced as a whole, never written in place: a
// crash leaves the old one or the new one. One goroutine may write at a time.
type KeyFile struct {
	Path string
}

// Save replaces the file. When it returns nil, the new content is on disk.
func (f KeyFile) Save(keys Keys) error {
	content, err := keys.encode()
	if err != nil {
		return fmt.Errorf("write key file %s: %w", f.Path, err)
	}
	if err := cluster.ReplaceFile(f.Path, content); err != nil {
		return fmt.Errorf("write key file %s: %w", f.Path, cause(err))
	}
	return nil
}

// Load reads the file back. It refuses a file that others may read, one that is
// damaged in any byte, one of a newer format, and one whose parts don't belong
// together. An error for a missing file is fs.ErrNotExist. One for a file that is
// locked is cluster.ErrLocked; the certificates, which anybody may know, are in
// the Keys then.
func (f KeyFile) Load() (Keys, error) { return f.Unlock(cluster.UnlockKey{}) }

// Unlock is Load for a file that may be locked under key. When it is locked under
// another one the error is cluster.ErrWrongKey.
func (f KeyFile) Unlock(key cluster.UnlockKey) (Keys, error) {
	keys, err := f.load(key)
	if err != nil {
		err = fmt.Errorf("read key file %s: %w", f.Path, err)
	}
	return keys, err
}

func (f KeyFile) load(key cluster.UnlockKey) (Keys, error) {
	file, err := os.Open(f.Path)
	if err != nil {
		return Keys{}, cause(err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return Keys{}, cause(err)
	}
	if !info.Mode().IsRegular() {
		return Keys{}, fmt.Errorf("not a regular file: %w", cluster.ErrInvalid)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return Keys{}, fmt.Errorf("others may read or write it (mode %04o): chmod it to 0600, and consider its keys known: %w", mode, cluster.ErrDenied)
	}
	content, err := io.ReadAll(io.LimitReader(file, maxKeyFile+1))
	if err != nil {
		return Keys{}, cause(err)
	}
	return decodeKeys(content, key)
}

// encode also checks, so that nothing is written that couldn't be read back.
func (k Keys) encode() ([]byte, error) {
	if err := k.validate(); err != nil {
		return nil, err
	}
	certs, err := parseCerts(k.CertPEM)
	if err != nil {
		return nil, err
	}
	trusted, err := parseRoots(k.RootPEM)
	if err != nil {
		return nil, err
	}
	key, err := parseKey(k.KeyPEM)
	if err != nil {
		return nil, err
	}
	keyPEM, err := marshalKey(key)
	if err != nil {
		return nil, err
	}
	public := append(pemBlock(certBlock, certs[0].Raw), trusted.pem()...)
	between := intermediates(certs)
	for _, cert := range between {
		public = append(public, pemBlock(certBlock, cert.Raw)...)
	}
	private := keyPEM
	for _, key := range k.DataKeys {
		private = append(private, pemBlock(dataKeyBlock, key[:])...)
	}
	if len(public)+len(private) > maxKeyFile-1024 {
		return nil, fmt.Errorf("%d data keys are too many: %w", len(k.DataKeys), cluster.ErrInvalid)
	}
	if k.Lock.None() && k.LockVersion == 0 && len(trusted) == 1 && len(between) == 0 {
		body := append(public, private...)
		return append(keyFileHeader(plainFormat, body), body...), nil
	}
	lock := binary.BigEndian.AppendUint64(nil, k.LockVersion)
	if !k.Lock.None() {
		if lock, err = sealKeys(k.Lock, lock, public, private); err != nil {
			return nil, err
		}
		private = nil
	}
	body := slices.Concat(public, pemBlock(lockBlock, lock), private)
	return append(keyFileHeader(lockFormat, body), body...), nil
}

func pemBlock(kind string, content []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: content})
}

// lockPlace is what the sealed keys are bound to: the certificates beside them
// and the version of the lock.
func lockPlace(version, public []byte) []byte {
	return slices.Concat([]byte("skep locked keys\x00"), version, public)
}

// sealKeys appends the sealed keys to the version of the lock.
func sealKeys(lock cluster.UnlockKey, version, public, private []byte) ([]byte, error) {
	aead, err := chacha20poly1305.NewX(lock[:])
	if err != nil {
		return nil, fmt.Errorf("lock keys: %w", err)
	}
	out := make([]byte, len(version)+aead.NonceSize(), len(version)+aead.NonceSize()+len(private)+aead.Overhead())
	copy(out, version)
	nonce := out[len(version):]
	rand.Read(nonce) // It never fails: crypto/rand ends the process instead.
	return aead.Seal(out, nonce, private, lockPlace(version, public)), nil
}

// openKeys is the inverse of sealKeys.
func openKeys(lock cluster.UnlockKey, block, public []byte) ([]byte, error) {
	aead, err := chacha20poly1305.NewX(lock[:])
	if err != nil {
		return nil, fmt.Errorf("unlock keys: %w", err)
	}
	version, sealed := block[:lockVersionSize], block[lockVersionSize:]
	if len(sealed) < aead.NonceSize()+aead.Overhead() {
		return nil, fmt.Errorf("locked keys are cut short: %w", cluster.ErrInvalid)
	}
	private, err := aead.Open(nil, sealed[:aead.NonceSize()], sealed[aead.NonceSize():], lockPlace(version, public))
	if err != nil {
		return nil, cluster.ErrWrongKey
	}
	return private, nil
}

const lockVersionSize = 8

func keyFileHeader(format int, body []byte) []byte {
	sum := sha256.Sum256(body)
	return fmt.Appendf(nil, "%s %d %x\n", keyFileMagic, format, sum)
}

func decodeKeys(content []byte, lock cluster.UnlockKey) (Keys, error) {
	if len(content) > maxKeyFile {
		return Keys{}, fmt.Errorf("more than %d bytes: %w", maxKeyFile, cluster.ErrInvalid)
	}
	header, body, _ := bytes.Cut(content, []byte("\n"))
	words := bytes.Split(header, []byte(" "))
	if len(words) < 2 || string(words[0]) != keyFileMagic {
		return Keys{}, fmt.Errorf("damaged, or not a key file: %w", cluster.ErrInvalid)
	}
	format, err := strconv.ParseUint(string(words[1]), 10, 16)
	if err != nil || format == 0 {
		return Keys{}, fmt.Errorf("damaged: format is no number: %w", cluster.ErrInvalid)
	}
	if format > lockFormat {
		return Keys{}, fmt.Errorf("format %d is newer than this version of skep, which reads up to %d: %w", format, lockFormat, cluster.ErrUnsupported)
	}
	sum := sha256.Sum256(body)
	if len(words) != 3 || string(words[2]) != hex.EncodeToString(sum[:]) || !bytes.Equal(content, append(keyFileHeader(int(format), body), body...)) {
		return Keys{}, fmt.Errorf("damaged: checksum doesn't match: %w", cluster.ErrInvalid)
	}
	leaf, rest := onlyBlock(body, certBlock)
	root, rest := onlyBlock(rest, certBlock)
	if leaf == nil || root == nil {
		return Keys{}, fmt.Errorf("a certificate or the key is missing: %w", cluster.ErrInvalid)
	}
	var keys Keys
	keys.RootPEM = pemBlock(certBlock, root)
	keys.CertPEM = append(pemBlock(certBlock, leaf), keys.RootPEM...)
	if format == lockFormat {
		var block []byte
		for {
			if block, rest = onlyBlock(rest, certBlock); block == nil {
				break
			}
			cert, err := x509.ParseCertificate(block)
			if err != nil {
				return Keys{}, fmt.Errorf("parse certificate: %v: %w", err, cluster.ErrInvalid)
			}
			if selfSigned(cert) {
				keys.RootPEM = append(keys.RootPEM, pemBlock(certBlock, block)...)
			}
			keys.CertPEM = append(keys.CertPEM, pemBlock(certBlock, block)...)
		}
		if block, rest = onlyBlock(rest, lockBlock); len(block) < lockVersionSize {
			return Keys{}, fmt.Errorf("malformed lock: %w", cluster.ErrInvalid)
		}
		keys.LockVersion = binary.BigEndian.Uint64(block)
		if len(block) > lockVersionSize {
			if len(rest) > 0 {
				return Keys{}, fmt.Errorf("something follows the locked keys: %w", cluster.ErrInvalid)
			}
			if lock.None() {
				return keys, cluster.ErrLocked
			}
			keys.Lock = lock
			if rest, err = openKeys(lock, block, keys.CertPEM); err != nil {
				return Keys{}, err
			}
		}
	}
	key, rest := onlyBlock(rest, keyBlock)
	if key == nil {
		return Keys{}, fmt.Errorf("a certificate or the key is missing: %w", cluster.ErrInvalid)
	}
	keys.KeyPEM = pemBlock(keyBlock, key)
	for len(rest) > 0 {
		var data []byte
		if data, rest = onlyBlock(rest, dataKeyBlock); len(data) != 32 {
			return Keys{}, fmt.Errorf("malformed data key: %w", cluster.ErrInvalid)
		}
		keys.DataKeys = append(keys.DataKeys, [32]byte(data))
	}
	if err := keys.validate(); err != nil {
		return Keys{}, err
	}
	return keys, nil
}

// validate checks that the parts belong together.
func (k Keys) validate() error {
	if len(k.DataKeys) == 0 {
		return fmt.Errorf("no data key: %w", cluster.ErrInvalid)
	}
	for _, key := range k.DataKeys {
		if key == ([32]byte{}) {
			return fmt.Errorf("a data key is all zero: %w", cluster.ErrInvalid)
		}
	}
	trusted, err := parseRoots(k.RootPEM)
	if err != nil {
		return err
	}
	_, err = hold(trusted, k.CertPEM, k.KeyPEM)
	return err
}

// cause takes the path out of an error of package os; Load and Save name it once.
func cause(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return fmt.Errorf("%s: %w", path.Op, path.Err)
	}
	return err
}
