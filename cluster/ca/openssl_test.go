package ca

import (
	"bytes"
	"crypto/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"skep/cluster"
)

// TestGivenRoot_FromOpenSSL takes root CAs as the openssl of this machine makes them, and
// has the whole way with each: it follows another root, and nodes by either meet.
func TestGivenRoot_FromOpenSSL(t *testing.T) {
	program, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("openssl isn't there")
	}
	dir := t.TempDir()
	openssl := func(t *testing.T, args ...string) []byte {
		t.Helper()
		cmd := exec.Command(program, args...)
		cmd.Dir = dir
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("openssl %q: %v", args, err)
		}
		return out
	}
	write := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	// As old as time, without any extension but the one that makes a CA.
	bare := write("bare.cnf", []byte("[req]\ndistinguished_name=dn\nx509_extensions=v3\nprompt=no\n[dn]\nCN=bare\n[v3]\nbasicConstraints=critical,CA:TRUE\n"))
	noCA := write("noca.cnf", []byte("[req]\ndistinguished_name=dn\nx509_extensions=v3\nprompt=no\n[dn]\nCN=bare\n[v3]\nkeyUsage=digitalSignature\n"))
	wrongUse := write("wronguse.cnf", []byte("[req]\ndistinguished_name=dn\nx509_extensions=v3\nprompt=no\n[dn]\nCN=bare\n[v3]\nbasicConstraints=critical,CA:TRUE\nkeyUsage=digitalSignature\n"))
	shut := write("shut.cnf", []byte("[req]\ndistinguished_name=dn\nx509_extensions=v3\nprompt=no\n[dn]\nCN=bare\n[v3]\nbasicConstraints=critical,CA:TRUE,pathlen:0\n"))
	otherUse := write("otheruse.cnf", []byte("[req]\ndistinguished_name=dn\nx509_extensions=v3\nprompt=no\n[dn]\nCN=bare\n[v3]\nbasicConstraints=critical,CA:TRUE\nextendedKeyUsage=codeSigning\n"))
	names := write("names.cnf", []byte("[req]\ndistinguished_name=dn\nx509_extensions=v3\nprompt=no\n[dn]\nCN=bare\n[v3]\nbasicConstraints=critical,CA:TRUE\nnameConstraints=critical,permitted;DNS:example.com\n"))
	certificate := func(t *testing.T, key []byte, args ...string) []byte {
		t.Helper()
		path := write("key.pem", key)
		return openssl(t, append([]string{"req", "-x509", "-new", "-key", path, "-days", "3650"}, args...)...)
	}
	ec := func(curve string) []string { return []string{"ecparam", "-genkey", "-name", curve} }
	for _, test := range []struct {
		name string
		key  []string
		// change is done to the key, and cert are what the certificate is made with.
		change func(t *testing.T, key []byte) []byte
		cert   []string
		want   string // of the error; empty for none
	}{
		{"RSA, as req -newkey makes it", []string{"genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"}, nil, []string{"-subj", "/CN=my root"}, ""},
		{"RSA 4096, PKCS #1", []string{"genrsa", "-traditional", "4096"}, nil, []string{"-subj", "/CN=my root"}, ""},
		{"EC P-256, SEC 1 with parameters", ec("prime256v1"), nil, []string{"-subj", "/CN=my root"}, ""},
		{"EC P-256, SEC 1 without parameters, as cfssl makes it", append(ec("prime256v1"), "-noout"), nil, []string{"-subj", "/O=x/CN=my root"}, ""},
		{"EC P-256, PKCS #8", []string{"genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"}, nil, []string{"-config", bare}, ""},
		{"EC P-384 without key usage", ec("secp384r1"), nil, []string{"-config", bare}, ""},
		{"EC P-521", ec("secp521r1"), nil, []string{"-config", bare}, ""},
		{"Ed25519", []string{"genpkey", "-algorithm", "ED25519"}, nil, []string{"-config", bare}, ""},
		{"lines that end as on Windows, and text around", ec("prime256v1"), func(_ *testing.T, key []byte) []byte {
			return append([]byte("my key\r\n"), bytes.ReplaceAll(key, []byte("\n"), []byte("\r\n"))...)
		}, []string{"-config", bare, "-text"}, ""},
		{"RSA 1024", []string{"genrsa", "1024"}, nil, []string{"-config", bare}, "RSA key of 1024 bits"},
		{"EC secp256k1", ec("secp256k1"), nil, []string{"-config", bare}, "certificate"},
		{"Ed448", []string{"genpkey", "-algorithm", "ED448"}, nil, []string{"-config", bare}, ""},
		{"an encrypted key", ec("prime256v1"), func(t *testing.T, key []byte) []byte {
			return openssl(t, "pkcs8", "-topk8", "-in", write("plain.pem", key), "-passout", "pass:x")
		}, []string{"-config", bare, "-passin", "pass:x"}, "encrypted"},
		{"an encrypted key of the old form", ec("prime256v1"), func(t *testing.T, key []byte) []byte {
			return openssl(t, "ec", "-aes128", "-in", write("plain.pem", key), "-passout", "pass:x")
		}, []string{"-config", bare, "-passin", "pass:x"}, "encrypted"},
		{"no CA", ec("prime256v1"), nil, []string{"-config", noCA}, "CA:TRUE"},
		{"a key usage without signing", ec("prime256v1"), nil, []string{"-config", wrongUse}, "key usage"},
		{"no room for a successor", ec("prime256v1"), nil, []string{"-config", shut}, "pathlen:0"},
		{"a CA for other uses", ec("prime256v1"), nil, []string{"-config", otherUse}, "would be refused"},
		{"a CA for other names", ec("prime256v1"), nil, []string{"-config", names}, "would be refused"},
		{"SHA-1", ec("prime256v1"), nil, []string{"-config", bare, "-sha1"}, "SHA1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			key := openssl(t, test.key...)
			if test.change != nil {
				key = test.change(t, key)
			}
			cert := certificate(t, key, test.cert...)
			now := time.Now()
			next, err := GivenRoot(cert, key)
			if err == nil {
				err = next.Successor(now)
			}
			old, made := NewRoot(rand.Reader, now, "c1")
			if made != nil {
				t.Fatal(made)
			}
			var cross []byte
			if err == nil {
				cross, err = old.Cross(rand.Reader, next, now)
			}
			if test.name == "Ed448" { // Go doesn't know it.
				test.want = "certificate"
			}
			if test.want != "" {
				if err == nil || !strings.Contains(err.Error(), test.want) {
					t.Fatalf("%v; want %q", err, test.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			// What is kept of it reads back the same.
			kept, err := next.KeyPEM()
			if err != nil {
				t.Fatal(err)
			}
			if next, err = ParseRoot(next.CertPEM(), kept); err != nil {
				t.Fatal(err)
			}
			oldChain, oldKey, err := certified(old, "n1", now)
			if err != nil {
				t.Fatal(err)
			}
			newChain, newKey, err := certified(next, "n2", now)
			if err != nil {
				t.Fatal(err)
			}
			behind, err := newCredentials(roots{old}, oldChain, oldKey, time.Now)
			if err != nil {
				t.Fatal(err)
			}
			ahead, err := Keys{CertPEM: append(newChain, cross...), KeyPEM: newKey, RootPEM: append(old.CertPEM(), next.CertPEM()...)}.Credentials(time.Now)
			if err != nil {
				t.Fatal(err)
			}
			for _, pair := range [][2]*Credentials{{behind, ahead}, {ahead, behind}, {ahead, ahead}} {
				if err := meet(pair[0].ServerTLS("x"), pair[1].ClientTLS(cluster.Identity{}, "x")); err != nil {
					t.Error(err)
				}
			}
			// And the way back: it can be followed, too.
			after, err := NewRoot(rand.Reader, now, "c1")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := next.Cross(rand.Reader, after, now); err != nil {
				t.Error(err)
			}
			config, trusted := JoinTLS(next.Digest(), time.Now, "x")
			onlyNew, err := newCredentials(roots{next}, newChain, newKey, time.Now)
			if err != nil {
				t.Fatal(err)
			}
			if err := meet(onlyNew.ServerTLS("x"), config); err != nil || trusted.Root() == nil {
				t.Errorf("join by its digest: %v", err)
			}
		})
	}
}

// certified is a manager's certificate by root.
func certified(root *Root, name string, now time.Time) (chain, key []byte, err error) {
	key, csr, err := NewRequest(rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	chain, err = root.Issue(rand.Reader, csr, cluster.Identity{NodeID: name, Role: manager, ClusterID: "c1"}, now, 0)
	return chain, key, err
}
