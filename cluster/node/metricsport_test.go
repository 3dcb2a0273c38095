package node

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/agent/simulate"
	"skep/cluster"
	"skep/cluster/api"
	"skep/cluster/ca"
)

// A port that anybody could read isn't opened unless one says so.
func TestMetricsPort_Check(t *testing.T) {
	dir := t.TempDir()
	token, short := filepath.Join(dir, "token"), filepath.Join(dir, "short")
	write(t, token, strings.Repeat("t", leastToken)+"\n")
	write(t, short, strings.Repeat("t", leastToken-1)+"\n")
	for _, of := range []struct {
		port MetricsPort
		says string // "" for allowed
	}{
		{MetricsPort{}, ""},
		{MetricsPort{Addr: "127.0.0.1:9100"}, ""},
		{MetricsPort{Addr: "[::1]:9100"}, ""},
		{MetricsPort{Addr: "127.0.0.1:9100", TokenFile: token}, ""},
		{MetricsPort{Addr: "10.0.0.1:9100", TLS: true}, ""},
		{MetricsPort{Addr: "10.0.0.1:9100", TLS: true, TokenFile: token}, ""},
		{MetricsPort{Addr: "10.0.0.1:9100", Insecure: true}, ""},
		{MetricsPort{Addr: "10.0.0.1:9100", TokenFile: token, Insecure: true}, ""},

		{MetricsPort{Addr: "10.0.0.1:9100"}, "anybody who reaches it"},
		{MetricsPort{Addr: "0.0.0.0:9100"}, "anybody who reaches it"},
		{MetricsPort{Addr: "[::]:9100"}, "anybody who reaches it"},
		{MetricsPort{Addr: "[::ffff:10.0.0.1]:9100"}, "anybody who reaches it"},
		{MetricsPort{Addr: "10.0.0.1:9100", NoServices: true}, "anybody who reaches it"},
		{MetricsPort{Addr: "10.0.0.1:9100", TokenFile: token}, "would read the token"},
		{MetricsPort{Addr: "127.0.0.1:9100", TokenFile: short}, "15 characters: want at least 16"},
		{MetricsPort{Addr: "127.0.0.1:9100", TokenFile: dir + "/none"}, "no such file"},
		{MetricsPort{Addr: "localhost:9100"}, "want IP:PORT"},
		{MetricsPort{Addr: ":9100"}, "want IP:PORT"},
		{MetricsPort{TLS: true}, "needs an address"},
		{MetricsPort{Insecure: true}, "needs an address"},
	} {
		err := of.port.Check()
		if of.says == "" && err != nil || of.says != "" && (err == nil || !strings.Contains(err.Error(), of.says)) {
			t.Errorf("%+v: %v, want %q", of.port, err, of.says)
		}
	}
}

func issued(t *testing.T, root *ca.Root, clusterID string) *ca.Credentials {
	key, request, err := ca.NewRequest(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := root.Issue(rand.Reader, request, cluster.Identity{NodeID: "n1", ClusterID: clusterID, Role: swarm.NodeRoleWorker}, time.Now(), 0)
	if err != nil {
		t.Fatal(err)
	}
	credentials, err := ca.Keys{RootPEM: root.CertPEM(), CertPEM: cert, KeyPEM: key}.Credentials(time.Now)
	if err != nil {
		t.Fatal(err)
	}
	return credentials
}

// By TLS, metrics are for those with a certificate of the cluster, or with the token.
func TestMetricsPort_TLS(t *testing.T) {
	root, err := ca.NewRoot(rand.Reader, time.Now(), "c1")
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := ca.NewRoot(rand.Reader, time.Now(), "c2")
	if err != nil {
		t.Fatal(err)
	}
	own, strange := issued(t, root, "c1"), issued(t, stranger, "c2")
	secret := strings.Repeat("s", leastToken)
	port := func(token string, joined bool) (ask func(config *tls.Config, authorization string) (int, error)) {
		file := ""
		if token != "" {
			file = filepath.Join(t.TempDir(), "token")
			write(t, file, token)
		}
		n, err := New(Config{DataDir: t.TempDir(), Driver: simulate.New(simulate.Config{}), MetricsPort: MetricsPort{Addr: "127.0.0.1:0", TLS: true, TokenFile: file}})
		if err != nil {
			t.Fatal(err)
		}
		if joined {
			n.member = &member{credentials: own}
		}
		listener, err := n.listenMetrics()
		if err != nil {
			t.Fatal(err)
		}
		// What it serves doesn't matter here, but who gets it.
		served := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if token != "" && r.Header.Get("Authorization") != "Bearer "+token {
				w.WriteHeader(http.StatusUnauthorized)
			}
		})
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- api.ServeScrapes(ctx, listener, served) }()
		t.Cleanup(func() {
			cancel()
			if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
		return func(config *tls.Config, authorization string) (int, error) {
			transport := &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}
			defer transport.CloseIdleConnections()
			scheme := "https://"
			if config == nil {
				scheme = "http://"
			}
			r, err := http.NewRequest(http.MethodGet, scheme+listener.Addr().String()+"/metrics", nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Authorization", authorization)
			response, err := (&http.Client{Transport: transport, Timeout: 5 * time.Second}).Do(r)
			if err != nil {
				return 0, err
			}
			return response.StatusCode, response.Body.Close()
		}
	}
	anybody := &tls.Config{InsecureSkipVerify: true}
	foreign := strange.ClientTLS(cluster.Identity{})
	foreign.InsecureSkipVerify, foreign.VerifyConnection = true, nil
	member := own.ClientTLS(cluster.Identity{NodeID: "n1"})
	certified, guarded, outside := port("", true), port(secret, true), port("", false)
	for _, of := range []struct {
		what          string
		ask           func(*tls.Config, string) (int, error)
		config        *tls.Config
		authorization string
		status        int // 0 for refused
	}{
		{"a node", certified, member, "", 200},
		{"without a certificate", certified, anybody, "", 0},
		{"another cluster's certificate", certified, foreign, "", 0},
		{"without TLS", certified, nil, "", 0},
		{"with the token", guarded, anybody, "Bearer " + secret, 200},
		{"without the token", guarded, anybody, "", 401},
		{"another cluster's certificate and the token", guarded, foreign, "Bearer " + secret, 0},
		{"of a node in no cluster", outside, member, "", 0},
	} {
		if status, err := of.ask(of.config, of.authorization); status != of.status || (status == 0) != (err != nil) {
			t.Errorf("%s: %d, %v, want %d", of.what, status, err, of.status)
		}
	}
}
