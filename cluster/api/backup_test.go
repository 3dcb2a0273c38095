package api

import (
	"bytes"
	"net/http"
	"testing"

	"skep/cluster"
)

func TestBackup_RefusesNonsense(t *testing.T) {
	b := newBench(t)
	key := bytes.Repeat([]byte{7}, 32)
	for _, c := range []struct {
		name, path string
		body       any
		status     int
		want       string
	}{
		{"backup", "/skep/v1/backup", cluster.BackupRequest{Key: key}, 200, "sealed under 32 bytes"},
		{"no key", "/skep/v1/backup", cluster.BackupRequest{}, 400, "Key: must be 32 bytes"},
		{"unknown field", "/skep/v1/backup", `{"Passphrase":"x"}`, 400, "unknown field"},
		{"relative path", "/skep/v1/restore", cluster.RestoreRequest{Path: "b", Key: key}, 400, "must be absolute"},
		{"no key to restore", "/skep/v1/restore", cluster.RestoreRequest{Path: "/b"}, 400, "Key: must be 32 bytes"},
		{"negative offset", "/skep/v1/restore", cluster.RestoreRequest{Path: "/b", Offset: -1, Key: key}, 400, "Offset"},
		{"wrong availability", "/skep/v1/restore", cluster.RestoreRequest{Path: "/b", Key: key, Availability: "lazy"}, 400, "Availability"},
		{"node refuses", "/skep/v1/restore", cluster.RestoreRequest{Path: "/b", Key: key}, 503, "can't restore /b"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b.do(http.MethodPost, c.path, c.body).want(t, c.status, c.want)
		})
	}
}
