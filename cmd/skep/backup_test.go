package main

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"

	"skep/cluster"
)

func opened(file []byte, identity age.Identity) (string, error) {
	plain, err := age.Decrypt(bytes.NewReader(file), identity)
	if err != nil {
		return "", err
	}
	text, err := io.ReadAll(plain)
	return string(text), err
}

func TestBackup_AndRestoreAgreeOnTheKey(t *testing.T) {
	node := newFakeNode(t)
	env := []string{"SKEP_HOST=" + node.url}
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	pass, path := file("pass", "correct horse battery\n"), filepath.Join(dir, "b")
	if r := skep(t, env, "cluster", "backup", "--passphrase-file", pass, path); r.status != 0 {
		t.Fatalf("backup: %+v", r)
	}
	written, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 || strings.Contains(string(written), "database") {
		t.Errorf("%v %q", info.Mode(), written)
	}
	// It is what the age tool makes and opens with the passphrase alone.
	identity, err := age.NewScryptIdentity("correct horse battery")
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := opened(written, identity); err != nil || plain != "database" {
		t.Errorf("opened by its passphrase it is %q, %v", plain, err)
	}
	if strings.Contains(node.last(), "horse") {
		t.Error("the passphrase was sent")
	}

	r := skep(t, env, "cluster", "restore", "--passphrase-file", pass, "--advertise-addr", "127.0.1.1", path)
	if r.status != 0 || !strings.Contains(r.stdout, "Cluster restored: current node (vbrmfwap9empswux9licqj8jz)") {
		t.Fatalf("restore: %+v", r)
	}
	var restored cluster.RestoreRequest
	if err := json.Unmarshal([]byte(node.last()), &restored); err != nil {
		t.Fatal(err)
	}
	if plain, err := opened(written, age.NewInjectedFileKeyIdentity(restored.Key)); err != nil || plain != "database" || restored.Path != path || restored.AdvertiseAddr != "127.0.1.1" {
		t.Errorf("restore asked %+v: %q, %v", restored, plain, err)
	}
	if strings.Contains(node.last(), "horse") {
		t.Error("the passphrase was sent to restore")
	}

	for _, c := range []struct {
		name string
		args []string
		want string
	}{
		{"no passphrase", []string{"backup", path + "2"}, "--passphrase-file is missing"},
		{"no such passphrase", []string{"backup", "--passphrase-file", path + "-none", path + "2"}, "no such file"},
		{"a short passphrase", []string{"backup", "--passphrase-file", file("short", "secret"), path + "2"}, "at least 12 characters"},
		{"a passphrase that nobody can type", []string{"backup", "--passphrase-file", file("lines", "correct horse\nbattery staple\n"), path + "2"}, "it has more than one line"},
		{"a file that is no passphrase", []string{"backup", "--passphrase-file", file("long", strings.Repeat("x", 5000)), path + "2"}, "more than 4096 bytes"},
		{"a file that is there", []string{"backup", "--passphrase-file", pass, path}, "file exists"},
		{"no file", []string{"backup", "--passphrase-file", pass}, "requires 1 argument"},
		{"restore something else", []string{"restore", "--passphrase-file", pass, pass}, "it isn't a backup of skep"},
		{"restore with another passphrase", []string{"restore", "--passphrase-file", file("other", "incorrect horse battery"), path}, "the passphrase is wrong"},
		{"restore what takes too long", []string{"restore", "--passphrase-file", pass, file("hard", strings.Replace(string(written), " 18\n", " 21\n", 1))}, "work factor too large"},
		{"restore with a changed header", []string{"restore", "--passphrase-file", pass, file("changed", strings.Replace(string(written), "--- ", "--- A", 1))}, "a backup"},
		{"restore nothing", []string{"restore", "--passphrase-file", pass, path + "-none"}, "no such file"},
	} {
		if r := skep(t, env, append([]string{"cluster"}, c.args...)...); r.status == 0 || !strings.Contains(r.stderr, c.want) {
			t.Errorf("%s: %+v; want %q", c.name, r, c.want)
		}
	}
	if r := skep(t, []string{"SKEP_HOST=unix://" + dir + "/nobody"}, "cluster", "backup", "--passphrase-file", pass, path+"3"); r.status == 0 {
		t.Errorf("without a node: %+v", r)
	}
	for _, missing := range []int{1, 100} {
		node.mu.Lock()
		node.missing = missing
		node.mu.Unlock()
		if r := skep(t, env, "cluster", "backup", "--passphrase-file", pass, path+"4"); r.status == 0 || !strings.Contains(r.stderr, "read backup from") {
			t.Errorf("without the last %d bytes: %+v", missing, r)
		}
	}
	for _, left := range []string{path + "2", path + "3", path + "4"} {
		if _, err := os.Stat(left); err == nil {
			t.Errorf("a backup that failed left %s behind", left)
		}
	}
	if now, err := os.ReadFile(path); err != nil || string(now) != string(written) {
		t.Error("the backup that was there was touched")
	}
}
