package node

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"skep/agent/simulate"
	"skep/cluster/api"
)

// certificate writes one for a name, as users have them, and its key.
func certificate(t *testing.T, certFile, keyFile, name string) *x509.CertPool {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	write(t, certFile, string(cert))
	write(t, keyFile, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})))
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(cert)
	return pool
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestConsolePort_LetsInByTokens is a browser of another machine before the port, whose certificate and tokens change.
func TestConsolePort_LetsInByTokens(t *testing.T) {
	dir := t.TempDir()
	port := ConsolePort{Addr: "127.0.0.1:0", CertFile: filepath.Join(dir, "cert"), KeyFile: filepath.Join(dir, "key"), TokenFile: filepath.Join(dir, "tokens")}
	const name = "skep.example.org"
	pool := certificate(t, port.CertFile, port.KeyFile, name)
	token := strings.Repeat("t", 16)
	write(t, port.TokenFile, "read "+token+" wall\n")
	n, err := New(Config{DataDir: t.TempDir(), Driver: simulate.New(simulate.Config{}), ConsolePort: port})
	if err != nil {
		t.Fatal(err)
	}
	listener, err := n.listenConsole()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- api.ServeConsole(ctx, listener, n.api.ConsolePort("2378", port.tokens, port.knows)) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: name}, DisableKeepAlives: true}
	browser := &http.Client{Transport: transport, Jar: jar, Timeout: 10 * time.Second}
	ask := func(method, path string, form url.Values) (int, string) {
		t.Helper()
		r, err := http.NewRequest(method, "https://"+listener.Addr().String()+path, strings.NewReader(form.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		if method == http.MethodPost {
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			r.Header.Set("Origin", "https://"+listener.Addr().String())
		}
		answer, err := browser.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		return answer.StatusCode, string(body)
	}
	if _, body := ask("GET", "/console/", nil); !strings.Contains(body, `action="/login"`) {
		t.Errorf("without a token: %s", body)
	}
	if status, body := ask("GET", "/services", nil); status != 404 {
		t.Errorf("the API is there: %d %s", status, body)
	}
	if status, _ := ask("POST", "/login", url.Values{"code": {strings.Repeat("x", 16)}}); status != 403 {
		t.Errorf("a wrong token: %d", status)
	}
	const shown = "Nothing to show" // This node is no manager.
	if _, body := ask("POST", "/login", url.Values{"code": {token}}); !strings.Contains(body, shown) {
		t.Errorf("a right token: %s", body)
	}
	if status, body := ask("POST", "/console/services/x/scale", url.Values{"replicas": {"1"}}); status != 403 {
		t.Errorf("a token to read changes something: %d %s", status, body)
	}

	// Both files are read anew.
	write(t, port.TokenFile, "read "+strings.Repeat("u", 16)+" wall\n")
	if _, body := ask("GET", "/console/", nil); !strings.Contains(body, `action="/login"`) {
		t.Errorf("a token that isn't there any more: %s", body)
	}
	write(t, port.TokenFile, "nonsense")
	if status, _ := ask("POST", "/login", url.Values{"code": {token}}); status != 403 {
		t.Errorf("with tokens that can't be read: %d", status)
	}
	// What others could have written, or may have read, lets nobody in, also who was in.
	write(t, port.TokenFile, "read "+token+" wall\n")
	if _, body := ask("POST", "/login", url.Values{"code": {token}}); !strings.Contains(body, shown) {
		t.Errorf("a right token: %s", body)
	}
	for mode, in := range map[os.FileMode]bool{0o400: true, 0o600: true, 0o640: true, 0o644: false, 0o660: false, 0o602: false, 0o777: false} {
		if err := os.Chmod(port.TokenFile, mode); err != nil {
			t.Fatal(err)
		}
		if _, body := ask("GET", "/console/", nil); strings.Contains(body, shown) != in {
			t.Errorf("with permissions %04o it is shown: %v, want %v", mode, !in, in)
		}
		if err := port.Check(); (err == nil) != in || !in && !strings.Contains(err.Error(), "chmod 600") {
			t.Errorf("a start with permissions %04o: %v", mode, err)
		}
	}
	if err := os.Chmod(port.TokenFile, 0o600); err != nil {
		t.Fatal(err)
	}
	transport.TLSClientConfig.RootCAs = certificate(t, port.CertFile, port.KeyFile, name)
	ask("GET", "/", nil)
	for host, want := range map[string]bool{name: true, "192.0.2.9": true, "[2001:db8::1]": true, "evil.example.org": false, "localhost": false, "": false} {
		if got := port.knows(host); got != want {
			t.Errorf("%q is its name: %v, want %v", host, got, want)
		}
	}
	plain, err := http.Get("http://" + listener.Addr().String() + "/")
	if err == nil {
		plain.Body.Close()
		if plain.StatusCode != http.StatusBadRequest {
			t.Errorf("without TLS: %d", plain.StatusCode)
		}
	}
	if _, err := tls.Dial("tcp", listener.Addr().String(), &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}); err == nil {
		t.Error("it speaks TLS 1.2")
	}
}
