package manager

import "testing"

func TestSnapshotDue(t *testing.T) {
	const limit, interval = 32 << 20, 10000
	for _, test := range []struct {
		name                 string
		bytes, entries, size uint64
		want                 bool
	}{
		{"nothing came", 0, 0, 0, false},
		{"enough bytes", limit, 10, 1 << 20, true},
		{"too few", limit - 1, interval - 1, 1 << 20, false},
		{"enough entries", 10, interval, 500 << 20, true},
		{"too few bytes for a large database", 249 << 20, 10, 500 << 20, false},
		{"enough for it", 250 << 20, 10, 500 << 20, true},
	} {
		if got := snapshotDue(test.bytes, test.entries, test.size, limit, interval); got != test.want {
			t.Errorf("%s: %v", test.name, got)
		}
	}
}
