package dns

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"skep/cluster"
)

const (
	// fileHead is what a file of names begins with; its last byte is the version of what follows:
	// a digest of the rest, and the rest.
	fileHead = "skep names\n\x01"
	// largestFile is the most that is read. 10,000 endpoints are less than two megabytes.
	largestFile = 128 << 20
	// bootFile has another text after each start of the machine.
	bootFile = "/proc/sys/kernel/random/boot_id"
)

// stored is what a file of names has.
type stored struct {
	// Boot is the machine's start that it was written after: where the file's place isn't in
	// memory only, what is from before isn't true any more.
	Boot      string           `cbor:"1,keyasint"`
	Complete  bool             `cbor:"2,keyasint,omitempty"`
	Listen    []storedListen   `cbor:"3,keyasint,omitempty"`
	Resolvers []netip.AddrPort `cbor:"4,keyasint,omitempty"`
	Askers    []storedAsker    `cbor:"5,keyasint,omitempty"`
	// Networks has a storedNetwork for each ID, encoded: one that hasn't changed isn't read again.
	Networks map[string][]byte `cbor:"6,keyasint,omitempty"`
}

type storedListen struct {
	Addr   netip.AddrPort `cbor:"1,keyasint"`
	Bridge string         `cbor:"2,keyasint,omitempty"`
	From   netip.Prefix   `cbor:"3,keyasint,omitzero"`
}

// storedAsker is the addresses of a container, and what it may ask.
type storedAsker struct {
	Addr      netip.Addr       `cbor:"1,keyasint"`
	Networks  []string         `cbor:"2,keyasint,omitempty"`
	Resolvers []netip.AddrPort `cbor:"3,keyasint,omitempty"`
}

// storedNetwork is a network's names in lists, which are read and written much faster than
// maps of structures. Records has for each of Names how many addresses it stands for, doubled, and one
// more where they are shuffled; Addrs has those addresses, each after its length; Reverse has
// likewise the addresses that ReverseNames are the names of.
type storedNetwork struct {
	Subnets      []netip.Prefix `cbor:"1,keyasint,omitempty"`
	Names        []string       `cbor:"2,keyasint,omitempty"`
	Records      []uint32       `cbor:"3,keyasint,omitempty"`
	Addrs        []byte         `cbor:"4,keyasint,omitempty"`
	ReverseNames []string       `cbor:"5,keyasint,omitempty"`
	Reverse      []byte         `cbor:"6,keyasint,omitempty"`
}

func store(n *Names) (s stored, err error) {
	s = stored{Complete: n.Complete, Resolvers: n.Resolvers, Networks: make(map[string][]byte, len(n.Networks))}
	for _, l := range n.Listen {
		s.Listen = append(s.Listen, storedListen(l))
	}
	for addr, asker := range n.Askers {
		s.Askers = append(s.Askers, storedAsker{addr, asker.Networks, asker.Resolvers})
	}
	for id, network := range n.Networks {
		flat := storedNetwork{
			Subnets: network.Subnets, Names: make([]string, 0, len(network.Names)), Records: make([]uint32, 0, len(network.Names)),
			ReverseNames: make([]string, 0, len(network.Addresses)),
		}
		for name, record := range network.Names {
			count := uint32(len(record.Addrs)) << 1
			if record.Shuffle {
				count |= 1
			}
			flat.Names, flat.Records = append(flat.Names, name), append(flat.Records, count)
			for _, addr := range record.Addrs {
				flat.Addrs = appendAddr(flat.Addrs, addr)
			}
		}
		for addr, name := range network.Addresses {
			flat.ReverseNames, flat.Reverse = append(flat.ReverseNames, name), appendAddr(flat.Reverse, addr)
		}
		if s.Networks[id], err = cluster.Encode(flat); err != nil {
			return stored{}, err
		}
	}
	return s, nil
}

func appendAddr(to []byte, addr netip.Addr) []byte {
	bytes := addr.AsSlice()
	return append(append(to, byte(len(bytes))), bytes...)
}

// cutAddr is the first address of what appendAddr wrote, and the rest.
func cutAddr(from []byte) (netip.Addr, []byte, error) {
	if len(from) == 0 || len(from) < 1+int(from[0]) {
		return netip.Addr{}, nil, cluster.Errorf(cluster.ErrInvalid, "it lacks addresses")
	}
	size := 1 + int(from[0])
	addr, ok := netip.AddrFromSlice(from[1:size])
	if !ok {
		return netip.Addr{}, nil, cluster.Errorf(cluster.ErrInvalid, "it has an address of %d bytes", from[0])
	}
	return addr, from[size:], nil
}

// reader reads files of names, one after the other.
type reader struct{ read map[string]readNetwork }

// readNetwork is a network as it was read, and the digest of what it was read from.
type readNetwork struct {
	sum     [sha256.Size]byte
	network *Network
}

// names is the inverse of store.
func (r *reader) names(s stored) (*Names, error) {
	n := &Names{Complete: s.Complete, Resolvers: s.Resolvers, Askers: make(map[netip.Addr]*Asker, len(s.Askers)), Networks: make(map[string]*Network, len(s.Networks))}
	for _, l := range s.Listen {
		n.Listen = append(n.Listen, Listen(l))
	}
	for _, a := range s.Askers {
		n.Askers[a.Addr] = &Asker{Networks: a.Networks, Resolvers: a.Resolvers}
	}
	read := make(map[string]readNetwork, len(s.Networks))
	for id, data := range s.Networks {
		last := r.read[id]
		if sum := sha256.Sum256(data); last.network == nil || sum != last.sum {
			var flat storedNetwork
			if err := cluster.Decode(data, &flat); err != nil {
				return nil, fmt.Errorf("network %s: %w", id, err)
			}
			network, err := flat.network()
			if err != nil {
				return nil, fmt.Errorf("network %s: %w", id, err)
			}
			last = readNetwork{sum, network}
		}
		n.Networks[id], read[id] = last.network, last
	}
	r.read = read
	return n, nil
}

func (s storedNetwork) network() (n *Network, err error) {
	if len(s.Records) != len(s.Names) {
		return nil, cluster.Errorf(cluster.ErrInvalid, "it has %d names and %d records", len(s.Names), len(s.Records))
	}
	total := 0
	for _, count := range s.Records {
		total += int(count >> 1)
	}
	if total > len(s.Addrs)/5 {
		return nil, cluster.Errorf(cluster.ErrInvalid, "it lacks addresses")
	}
	addrs, left := make([]netip.Addr, total), s.Addrs
	for i := range addrs {
		if addrs[i], left, err = cutAddr(left); err != nil {
			return nil, err
		}
	}
	n = &Network{Subnets: s.Subnets, Names: make(map[string]Record, len(s.Names)), Addresses: make(map[netip.Addr]string, len(s.ReverseNames))}
	for i, name := range s.Names {
		count := s.Records[i] >> 1
		n.Names[name] = Record{Addrs: addrs[:count:count], Shuffle: s.Records[i]&1 != 0}
		addrs = addrs[count:]
	}
	left = s.Reverse
	for _, name := range s.ReverseNames {
		var addr netip.Addr
		if addr, left, err = cutAddr(left); err != nil {
			return nil, err
		}
		n.Addresses[addr] = name
	}
	return n, nil
}

// WriteFile makes the file have these names, whole or not at all. It must not be called twice
// at a time for one path. The process of names answers from it some milliseconds later.
//
// While the node doesn't know everything yet (Names.Complete) and the file is there already, leave
// it alone: what it says was true, and is answered until there is better.
func WriteFile(path string, n *Names) error {
	boot, err := bootID()
	if err != nil {
		return fmt.Errorf("write names: %w", err)
	}
	data, err := fileOf(n, boot)
	if err == nil {
		err = cluster.ReplaceFile(path, data)
	}
	if err != nil {
		return fmt.Errorf("write names: %w", err)
	}
	return nil
}

// fileOf is the content of a file of names.
func fileOf(n *Names, boot string) ([]byte, error) {
	s, err := store(n)
	if err != nil {
		return nil, err
	}
	s.Boot = boot
	body, err := cluster.Encode(s)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(body)
	return bytes.Join([][]byte{[]byte(fileHead), sum[:], body}, nil), nil
}

// ReadFile reads what WriteFile wrote. What is cut off, changed, of another version or from before
// the machine's last start is an error.
func ReadFile(path string) (*Names, error) { return new(reader).file(path) }

func (r *reader) file(path string) (*Names, error) {
	boot, err := bootID()
	if err != nil {
		return nil, fmt.Errorf("read names: %w", err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read names: %w", err)
	}
	if info.Size() > largestFile {
		return nil, cluster.Errorf(cluster.ErrInvalid, "read names: %s has %d bytes, more than %d", path, info.Size(), largestFile)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read names: %w", err)
	}
	n, err := r.parse(data, boot)
	if err != nil {
		return nil, fmt.Errorf("read names: %s: %w", path, err)
	}
	return n, nil
}

// parse reads the content of a file of names.
func (r *reader) parse(data []byte, boot string) (*Names, error) {
	body, is := bytes.CutPrefix(data, []byte(fileHead))
	if !is || len(body) < sha256.Size {
		return nil, cluster.Errorf(cluster.ErrUnsupported, "it is no file of names of this version")
	}
	if sum := sha256.Sum256(body[sha256.Size:]); !bytes.Equal(sum[:], body[:sha256.Size]) {
		return nil, cluster.Errorf(cluster.ErrInvalid, "it isn't whole, or was changed")
	}
	var s stored
	if err := cluster.Decode(body[sha256.Size:], &s); err != nil {
		return nil, err
	}
	if s.Boot != boot {
		return nil, cluster.Errorf(cluster.ErrInvalid, "it is from before the machine started")
	}
	return r.names(s)
}

func bootID() (string, error) {
	text, err := os.ReadFile(bootFile)
	return strings.TrimSpace(string(text)), err
}
