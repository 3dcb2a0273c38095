package ca

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"skep/cluster"
)

func newKeys(t testing.TB, root *Root, id cluster.Identity, dataKeys int) Keys {
	t.Helper()
	var keys Keys
	keys.CertPEM, keys.KeyPEM = issue(t, root, id)
	keys.RootPEM = root.CertPEM()
	for range dataKeys {
		var key [32]byte
		rand.Read(key[:])
		keys.DataKeys = append(keys.DataKeys, key)
	}
	return keys
}

func TestKeyFile_RoundTrip(t *testing.T) {
	root := newRoot(t, clusterID)
	file := KeyFile{Path: filepath.Join(t.TempDir(), "keys")}
	if _, err := file.Load(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
	for n := 1; n <= 3; n++ {
		keys := newKeys(t, root, node("n1", manager), n)
		if err := file.Save(keys); err != nil {
			t.Fatal(err)
		}
		got, err := file.Load()
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.CertPEM, keys.CertPEM) || !bytes.Equal(got.KeyPEM, keys.KeyPEM) || !bytes.Equal(got.RootPEM, keys.RootPEM) || !cmp.Equal(got.DataKeys, keys.DataKeys) {
			t.Error("not what was saved")
		}
		info, err := os.Stat(file.Path)
		if err != nil || info.Mode() != 0o600 {
			t.Errorf("mode %v, %v", info.Mode(), err)
		}
		c, err := got.Credentials(at(start))
		if err != nil || c.Identity() != node("n1", manager) {
			t.Errorf("%v, %v", c, err)
		}
	}
	if left, _ := filepath.Glob(file.Path + "?*"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestKeyFile_RefusesEveryDamage(t *testing.T) {
	plain := newKeys(t, newRoot(t, clusterID), node("n1", worker), 2)
	t.Run("plain", func(t *testing.T) { refusesEveryDamage(t, plain) })
	t.Run("locked", func(t *testing.T) { refusesEveryDamage(t, locked(t, plain, 3)) })
}

func refusesEveryDamage(t *testing.T, keys Keys) {
	file := KeyFile{Path: filepath.Join(t.TempDir(), "keys")}
	if err := file.Save(keys); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(file.Path)
	if err != nil {
		t.Fatal(err)
	}
	refused := func(what string, damaged []byte) {
		t.Helper()
		_, err := decodeKeys(damaged, keys.Lock)
		if err == nil {
			t.Fatalf("%s: accepted", what)
		}
		if !errors.Is(err, cluster.ErrInvalid) && !errors.Is(err, cluster.ErrUnsupported) {
			t.Fatalf("%s: %v", what, err)
		}
		if len(err.Error()) > 300 || strings.Contains(err.Error(), string(keys.KeyPEM[40:60])) {
			t.Fatalf("%s: error tells too much: %v", what, err)
		}
	}
	for i := range content {
		for bit := range 8 {
			damaged := bytes.Clone(content)
			damaged[i] ^= 1 << bit
			refused(fmt.Sprintf("bit %d of byte %d flipped", bit, i), damaged)
		}
		refused(fmt.Sprintf("cut to %d bytes", i), content[:i])
		refused(fmt.Sprintf("byte %d missing", i), append(bytes.Clone(content[:i]), content[i+1:]...))
	}
	refused("a byte more", append(bytes.Clone(content), '\n'))
	refused("twice", append(bytes.Clone(content), content...))
	refused("too large", append(bytes.Clone(content), make([]byte, maxKeyFile)...))
}

// locked gives keys that are locked, under a key of their own.
func locked(t testing.TB, keys Keys, version uint64) Keys {
	t.Helper()
	keys, changed := keys.WithLock(cluster.NewUnlockKey(rand.Reader), version, func() (key [32]byte) {
		rand.Read(key[:])
		return key
	})
	if !changed {
		t.Fatal("locking changes nothing")
	}
	return keys
}

// TestKeyFile_Locked: without the unlock key nothing but the certificates can be
// read, and with it all; each step leaves a file that opens with one key.
func TestKeyFile_Locked(t *testing.T) {
	file := KeyFile{Path: filepath.Join(t.TempDir(), "keys")}
	clear := newKeys(t, newRoot(t, clusterID), node("n1", manager), 1)
	keys := locked(t, clear, 7)
	if len(keys.DataKeys) != 2 || keys.DataKeys[1] != clear.DataKeys[0] {
		t.Fatalf("%d data keys: the one that lay in the clear must be replaced, and kept for what it sealed", len(keys.DataKeys))
	}
	if err := file.Save(keys); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(file.Path)
	if err != nil {
		t.Fatal(err)
	}
	for name, secret := range map[string][]byte{
		"key": keys.KeyPEM[40:80], "data key": keys.DataKeys[0][:], "old data key": keys.DataKeys[1][:], "unlock key": keys.Lock[:],
		"data key block": []byte(dataKeyBlock), "unlock key's text": []byte(keys.Lock.Text()[9:30]),
	} {
		if bytes.Contains(content, secret) || bytes.Contains(content, []byte(base64.StdEncoding.EncodeToString(secret)[:20])) {
			t.Errorf("the file shows the %s", name)
		}
	}
	got, err := file.Load()
	if id, _ := got.Identity(); !errors.Is(err, cluster.ErrLocked) || id != node("n1", manager) || got.KeyPEM != nil || got.DataKeys != nil {
		t.Errorf("without the key: %v, %v", got, err)
	}
	if got, err := file.Unlock(cluster.NewUnlockKey(rand.Reader)); !errors.Is(err, cluster.ErrWrongKey) || got.KeyPEM != nil || got.DataKeys != nil {
		t.Errorf("with another key: %v", err)
	}
	if got, err := file.Unlock(keys.Lock); err != nil || !cmp.Equal(got, keys) {
		t.Errorf("with the key: %v", err)
	}
	for i := range content {
		for bit := range 8 {
			damaged := bytes.Clone(content)
			damaged[i] ^= 1 << bit
			if _, err := decodeKeys(damaged, keys.Lock); !errors.Is(err, cluster.ErrInvalid) && !errors.Is(err, cluster.ErrUnsupported) {
				t.Fatalf("bit %d of byte %d flipped: %v", bit, i, err)
			}
		}
	}
	// What is sealed belongs to the certificates beside it and to its version.
	_, body, _ := bytes.Cut(content, []byte("\n"))
	block, _ := onlyBlock(body[len(keys.CertPEM):], lockBlock)
	other := newKeys(t, newRoot(t, clusterID), node("n1", manager), 1)
	for name, parts := range map[string][][]byte{
		"other certificates": {other.CertPEM, pemBlock(lockBlock, block)},
		"another version":    {keys.CertPEM, pemBlock(lockBlock, append([]byte{1}, block[1:]...))},
	} {
		forged := bytes.Join(parts, nil)
		if _, err := decodeKeys(append(keyFileHeader(lockFormat, forged), forged...), keys.Lock); !errors.Is(err, cluster.ErrWrongKey) {
			t.Errorf("%s: %v", name, err)
		}
	}

	// Another lock takes the place of this one, an older one doesn't.
	made := 0
	newKey := func() [32]byte { made++; return [32]byte{byte(made)} }
	for _, version := range []uint64{0, 6, 7} {
		if _, changed := keys.WithLock(cluster.NewUnlockKey(rand.Reader), version, newKey); changed {
			t.Errorf("a lock of version %d replaces the one of version 7", version)
		}
	}
	rotated, changed := keys.WithLock(cluster.NewUnlockKey(rand.Reader), 8, newKey)
	if err := file.Save(rotated); err != nil || !changed {
		t.Fatal(err)
	}
	if _, err := file.Unlock(keys.Lock); !errors.Is(err, cluster.ErrWrongKey) {
		t.Errorf("with the key before: %v", err)
	}
	if len(rotated.DataKeys) != len(keys.DataKeys)+1 || rotated.DataKeys[0] == keys.DataKeys[0] || rotated.DataKeys[1] != keys.DataKeys[0] {
		t.Error("another lock doesn't bring another data key")
	}
	if dropped := rotated.WithoutOld(); len(dropped.DataKeys) != 1 || dropped.DataKeys[0] != rotated.DataKeys[0] {
		t.Error("the present data key isn't what stays")
	}
	opened, changed := rotated.WithLock(cluster.UnlockKey{}, 9, newKey)
	if made != 1 {
		t.Errorf("%d data keys were made; want 1, since opening needs none", made)
	}
	if err := file.Save(opened); err != nil || !changed {
		t.Fatal(err)
	}
	for _, key := range []cluster.UnlockKey{{}, rotated.Lock} {
		if got, err := file.Unlock(key); err != nil || !cmp.Equal(got, opened) || got.LockVersion != 9 {
			t.Errorf("after it was unlocked: %v", err)
		}
	}
}

func TestKeyFile_RefusesNewerFormat(t *testing.T) {
	file := KeyFile{Path: filepath.Join(t.TempDir(), "keys")}
	if err := os.WriteFile(file.Path, []byte("skep-node-keys 3 something else\nentirely\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := file.Load(); !errors.Is(err, cluster.ErrUnsupported) || !strings.Contains(err.Error(), "format 3 is newer") || !strings.Contains(err.Error(), file.Path) {
		t.Errorf("%v", err)
	}
}

// TestKeyFile_RefusesWrongParts: a sum that fits isn't enough.
func TestKeyFile_RefusesWrongParts(t *testing.T) {
	root, other := newRoot(t, clusterID), newRoot(t, clusterID)
	good, foreign := newKeys(t, root, node("n1", worker), 1), newKeys(t, other, node("n1", worker), 1)
	for name, spoil := range map[string]func(*Keys){
		"another root":     func(k *Keys) { k.RootPEM = foreign.RootPEM },
		"another key":      func(k *Keys) { k.KeyPEM = foreign.KeyPEM },
		"another leaf":     func(k *Keys) { k.CertPEM = foreign.CertPEM },
		"no data key":      func(k *Keys) { k.DataKeys = nil },
		"a zero data key":  func(k *Keys) { k.DataKeys = append(k.DataKeys, [32]byte{}) },
		"no certificate":   func(k *Keys) { k.CertPEM = nil },
		"root as the leaf": func(k *Keys) { k.CertPEM = k.RootPEM },
	} {
		t.Run(name, func(t *testing.T) {
			keys := good
			keys.DataKeys = append([][32]byte{}, good.DataKeys...)
			spoil(&keys)
			file := KeyFile{Path: filepath.Join(t.TempDir(), "keys")}
			if err := file.Save(keys); err == nil {
				t.Error("saved")
			}
			if _, err := os.Stat(file.Path); err == nil {
				t.Error("wrote it all the same")
			}
		})
	}
	leaf := good.CertPEM[:len(good.CertPEM)-len(good.RootPEM)]
	dataKey := []byte("-----BEGIN SKEP DATA KEY-----\nAAAA\n-----END SKEP DATA KEY-----\n")
	for name, parts := range map[string][][]byte{
		"nothing":        nil,
		"no root":        {leaf, good.KeyPEM},
		"order":          {good.KeyPEM, leaf, good.RootPEM},
		"no data key":    {leaf, good.RootPEM, good.KeyPEM},
		"short data key": {leaf, good.RootPEM, good.KeyPEM, dataKey},
		"more":           {leaf, good.RootPEM, good.KeyPEM, []byte("more")},
		"another root":   {leaf, foreign.RootPEM, good.KeyPEM},
	} {
		body := bytes.Join(parts, nil)
		if _, err := decodeKeys(append(keyFileHeader(plainFormat, body), body...), cluster.UnlockKey{}); !errors.Is(err, cluster.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestKeyFile_RefusesOpenPermissions(t *testing.T) {
	file := KeyFile{Path: filepath.Join(t.TempDir(), "keys")}
	if err := file.Save(newKeys(t, newRoot(t, clusterID), node("n1", worker), 1)); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []fs.FileMode{0o640, 0o604, 0o620, 0o602, 0o610} {
		if err := os.Chmod(file.Path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := file.Load(); !errors.Is(err, cluster.ErrDenied) || !strings.Contains(err.Error(), "chmod") {
			t.Errorf("mode %04o: %v", mode, err)
		}
	}
	if _, err := (KeyFile{Path: t.TempDir()}).Load(); err == nil {
		t.Error("read a directory")
	}
}

// TestKeyFile_SaveIsAtomic reads all the while: it must see one whole file or the
// other. And what a crash left beside the file is in nobody's way.
func TestKeyFile_SaveIsAtomic(t *testing.T) {
	root := newRoot(t, clusterID)
	file := KeyFile{Path: filepath.Join(t.TempDir(), "keys")}
	versions := []Keys{newKeys(t, root, node("n1", worker), 1), newKeys(t, root, node("n1", manager), 5)}
	if err := file.Save(versions[0]); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		for i := range 100 {
			if i%10 == 0 {
				if err := os.WriteFile(file.Path+".new", []byte("half a fi"), 0o644); err != nil {
					done <- err
					return
				}
			}
			if err := file.Save(versions[i%2]); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for {
		keys, err := file.Load()
		if err != nil {
			t.Fatal(err)
		}
		if n := len(keys.DataKeys); n != 1 && n != 5 {
			t.Fatalf("%d data keys", n)
		}
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			return
		default:
		}
	}
}

func TestKeyFile_FailedSaveKeepsOld(t *testing.T) {
	root := newRoot(t, clusterID)
	dir := t.TempDir()
	file := KeyFile{Path: filepath.Join(dir, "keys")}
	keys := newKeys(t, root, node("n1", worker), 1)
	if err := file.Save(keys); err != nil {
		t.Fatal(err)
	}
	// What stands in the way can't be removed.
	if err := os.MkdirAll(filepath.Join(dir, "keys.new", "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	err := file.Save(newKeys(t, root, node("n1", manager), 1))
	if err == nil || !strings.Contains(err.Error(), file.Path) || strings.Count(err.Error(), dir) != 1 {
		t.Errorf("error %v", err)
	}
	if got, err := file.Load(); err != nil || !bytes.Equal(got.CertPEM, keys.CertPEM) {
		t.Errorf("old file: %v", err)
	}
	if err := (KeyFile{Path: filepath.Join(dir, "missing", "keys")}).Save(keys); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing directory: %v", err)
	}
}

func TestKeys_DontPrint(t *testing.T) {
	keys := newKeys(t, newRoot(t, clusterID), node("n1", worker), 1)
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		if got := fmt.Sprintf(format, keys); strings.Trim(got, `"`) != "keys of node n1" {
			t.Errorf("%s: %.100s", format, got)
		}
	}
	if keys.LogValue().String() != "keys of node n1" || (Keys{}).String() != "keys of no node" {
		t.Error("logs tell more or less")
	}
}
