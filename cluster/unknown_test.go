package cluster

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"
)

// newer is what older is in a later version: it has fields of its own at each depth, and
// leaves one out when it is zero.
type newer struct {
	Name  string
	Added string            `cbor:",omitempty"`
	Zero  int               `cbor:",omitempty"`
	Items []newerItem       `cbor:",omitempty"`
	Inner *newerItem        `cbor:",omitempty"`
	Named map[string]string `cbor:",omitempty"`
	Deep  map[string]newerItem
}

type newerItem struct {
	A     int
	Added []string `cbor:",omitempty"`
}

type older struct {
	Name  string
	Zero  int
	Items []olderItem       `cbor:",omitempty"`
	Inner *olderItem        `cbor:",omitempty"`
	Named map[string]string `cbor:",omitempty"`
	Deep  map[string]olderItem
}

type olderItem struct{ A int }

func drawNewer(t *rapid.T) newer {
	item := rapid.Custom(func(t *rapid.T) newerItem {
		return newerItem{rapid.IntRange(0, 3).Draw(t, "a"), rapid.SliceOfN(rapid.SampledFrom([]string{"x", "y"}), 0, 2).Draw(t, "added")}
	})
	n := newer{
		Name: rapid.SampledFrom([]string{"", "n", "m"}).Draw(t, "name"), Added: rapid.SampledFrom([]string{"", "new"}).Draw(t, "added"),
		Zero: rapid.IntRange(0, 1).Draw(t, "zero"), Items: rapid.SliceOfN(item, 0, 4).Draw(t, "items"),
		Named: rapid.MapOfN(rapid.SampledFrom([]string{"a", "b", "c"}), rapid.Just("v"), 0, 3).Draw(t, "named"),
		Deep:  rapid.MapOfN(rapid.SampledFrom([]string{"a", "b", "c"}), item, 0, 3).Draw(t, "deep"),
	}
	if rapid.Bool().Draw(t, "inner") {
		inner := item.Draw(t, "it")
		n.Inner = &inner
	}
	return n
}

func encoded(t interface{ Fatal(...any) }, v any) []byte {
	data, err := Encode(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func decoded[T any](t interface{ Fatal(...any) }, data []byte) T {
	var v T
	if err := Decode(data, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func merged(t interface{ Fatal(...any) }, came, known, next []byte) []byte {
	data, err := Merge(came, known, next)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestMerge_LeavesWhatNobodyChanged(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		came := encoded(t, drawNewer(t))
		known := encoded(t, decoded[older](t, came))
		if got := merged(t, came, known, known); !bytes.Equal(got, came) {
			t.Fatalf("%x came, and nothing was changed: %x", came, got)
		}
	})
}

// An older version changes what it knows; a newer one finds the rest as it was.
func TestMerge_KeepsWhatIsNotKnown(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		was := drawNewer(t)
		came := encoded(t, was)
		object := decoded[older](t, came)
		known := encoded(t, object)
		object.Name, object.Zero = "changed", rapid.IntRange(0, 1).Draw(t, "zero after")
		if object.Inner != nil {
			object.Inner.A = 9
		}
		delete(object.Deep, "a")
		if len(object.Items) > 0 {
			object.Items[0].A = 8 // Which item it was before nobody knows.
		}
		got := decoded[newer](t, merged(t, came, known, encoded(t, object)))
		want := was
		want.Name, want.Zero = "changed", object.Zero
		if want.Inner != nil {
			inner := *want.Inner
			inner.A = 9
			want.Inner = &inner
		}
		delete(want.Deep, "a")
		if len(want.Items) > 0 {
			want.Items = append([]newerItem{{A: 8}}, want.Items[1:]...)
		}
		if a, b := encoded(t, got), encoded(t, want); !bytes.Equal(a, b) {
			t.Fatalf("%+v\nwant %+v", got, want)
		}
	})
}

// A newer version gets what an older one wrote, and changes a field of its own.
func TestMerge_AddsWhatOlderOnesLack(t *testing.T) {
	came := encoded(t, older{Name: "n", Items: []olderItem{{1}}})
	object := decoded[newer](t, came)
	known := encoded(t, object)
	object.Added, object.Items[0].Added = "new", []string{"x"}
	got := merged(t, came, known, encoded(t, object))
	if a, b := encoded(t, decoded[newer](t, got)), encoded(t, object); !bytes.Equal(a, b) {
		t.Fatalf("%x, want %x", a, b)
	}
}

// What Encode wouldn't write can be read, so Merge may meet it: whatever it gives can be
// read again.
func TestMerge_OfAnotherForm(t *testing.T) {
	for _, test := range []struct{ what, came, want string }{
		{"a field that differs in case is another one", "\xa1\x64name\x61x", "\xa2\x64Name\x61z\x64name\x61x"},
		{"a key with a longer head", "\xa1\x78\x04Name\x61x", ""},
		{"keys in another order", "\xa2\x64Name\x61x\x61A\x61x", ""},
		{"a key without an end of its own", "\xa1\x7f\x64Name\xff\x61x", ""},
	} {
		object := decoded[older](t, []byte(test.came))
		known := encoded(t, object)
		object.Name = "z"
		got, err := Merge([]byte(test.came), known, encoded(t, object))
		if string(got) != test.want || (err == nil) != (test.want != "") {
			t.Errorf("%s: %q, %v, want %q", test.what, got, err, test.want)
		}
		if err == nil && decoded[older](t, got).Name != "z" {
			t.Errorf("%s: %q isn't what was written", test.what, got)
		}
	}
}

// FuzzMerge merges anything that can be read: no panic, and the result can be read.
func FuzzMerge(f *testing.F) {
	f.Add([]byte{0xa0}, []byte{0xa1, 0x61, 'A', 1})
	data, _ := Encode(newer{Name: "n", Added: "a", Items: []newerItem{{A: 1, Added: []string{"x"}}}})
	f.Add([]byte("\xa1\x64name\x61x"), []byte("\xa1\x64Name\x61z"))
	f.Add([]byte("\xa1\x78\x04Name\x61x"), []byte("\xa1\x64Name\x61z"))
	f.Add(data, []byte{0xa1, 0x64, 'N', 'a', 'm', 'e', 0x61, 'z'})
	f.Fuzz(func(t *testing.T, came, changed []byte) {
		var a, b older
		if Decode(came, &a) != nil || Decode(changed, &b) != nil {
			return
		}
		known, next := encoded(t, a), encoded(t, b)
		got, err := Merge(came, known, next)
		if err != nil {
			return
		}
		if again := encoded(t, decoded[older](t, got)); !bytes.Equal(again, next) {
			t.Fatalf("%x merged with %x has other known fields: %x", came, next, got)
		}
	})
}
