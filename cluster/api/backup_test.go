package api

import (
	"bytes"
	"net/http"
	"testing"

	"filippo.io/age"

	"skep/cluster"
)

func TestBackup_RefusesNonsense(t *testing.T) {
	b := newBench(t)
	key := bytes.Repeat([]byte{7}, cluster.BackupKeySize)
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	recipient := identity.Recipient().String()
	for _, c := range []struct {
		name, path string
		body       any
		status     int
		want       string
	}{
		{"backup", "/skep/v1/backup", cluster.BackupRequest{Recipient: recipient}, 200, "for " + recipient},
		{"no recipient", "/skep/v1/backup", cluster.BackupRequest{}, 400, "Recipient: must be one of the age tool"},
		{"a secret for a recipient", "/skep/v1/backup", cluster.BackupRequest{Recipient: identity.String()}, 400, "Recipient: must be one of the age tool"},
		{"unknown field", "/skep/v1/backup", `{"Passphrase":"x"}`, 400, "unknown field"},
		{"relative path", "/skep/v1/restore", cluster.RestoreRequest{Path: "b", Key: key}, 400, "must be absolute"},
		{"no key to restore", "/skep/v1/restore", cluster.RestoreRequest{Path: "/b"}, 400, "Key: must be 16 bytes"},
		{"wrong availability", "/skep/v1/restore", cluster.RestoreRequest{Path: "/b", Key: key, Availability: "lazy"}, 400, "Availability"},
		{"node refuses", "/skep/v1/restore", cluster.RestoreRequest{Path: "/b", Key: key}, 503, "can't restore /b"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b.do(http.MethodPost, c.path, c.body).want(t, c.status, c.want)
		})
	}
}
