package up

import (
	"net/netip"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

// Facts are what a machine says of itself: `skep machine facts` prints them there.
type Facts struct {
	Hostname, MachineID string
	// Systemd is its version; empty when systemd isn't the first process.
	Systemd   string
	Now       time.Time
	Addresses []Address
	Engine    Engine
	// NoNetworks says what the kernel lacks for networks that span nodes.
	NoNetworks string `json:",omitempty"`
	// Encryption says why encrypted networks are slow, or aren't there at all.
	Encryption string `json:",omitempty"`
	DiskFree   uint64
	DiskSize   uint64
	Skep       Skep
	Node       Node
	// Cluster is what a manager knows of the cluster; nil elsewhere.
	Cluster *Cluster `json:",omitempty"`
}

// Address is one that other machines may reach a machine by.
type Address struct {
	IP        netip.Addr
	Interface string
	MTU       int
}

// Engine is the machine's Docker Engine.
type Engine struct {
	Version, API string
	// Error says why it doesn't answer.
	Error string `json:",omitempty"`
	// Swarm tells what it is in a swarm of its own; empty for in none.
	Swarm string `json:",omitempty"`
}

// Skep is what is installed.
type Skep struct {
	// Path is the binary that the unit runs; empty for none.
	Path string `json:",omitempty"`
	// Packaged tells that a package brought it.
	Packaged bool `json:",omitempty"`
	Digest   string
	Version  string
	// Unit is what becomes of the unit: "", "current", "old", "by hand" or "packaged".
	Unit    string `json:",omitempty"`
	Enabled bool
	// Running is the digest of the binary that the daemon runs; empty when none does.
	Running string `json:",omitempty"`
	// Data tells that there is the data directory of a node.
	Data bool
}

// What becomes of a unit.
const (
	UnitCurrent  = "current"
	UnitOld      = "old"
	UnitByHand   = "by hand"
	UnitPackaged = "packaged"
)

// Node is what the daemon says of its node.
type Node struct {
	// State is as in docker info; empty while no daemon answers.
	State   swarm.LocalNodeState `json:",omitempty"`
	ID      string               `json:",omitempty"`
	Addr    string               `json:",omitempty"`
	Error   string               `json:",omitempty"`
	Manager bool                 `json:",omitempty"`
}

// in tells whether the node is in a cluster, or on its way.
func (n Node) in() bool { return n.State != "" && n.State != swarm.LocalNodeStateInactive }

// Cluster is what a manager knows.
type Cluster struct {
	ID string
	// DataPort is the UDP port of networks that span nodes.
	DataPort int
	// Error says why there is no Status.
	Error  string `json:",omitempty"`
	Status cluster.Status
	// Labels are the nodes', by ID.
	Labels map[string]map[string]string
	// InTheWay are what stands in the way of an upgrade to the binary that looks, as
	// `skep upgrade check` has it; asked for only where another one runs.
	InTheWay []string `json:",omitempty"`
}

// Sight is what was seen of a machine.
type Sight struct {
	// Err says why nothing was.
	Err string `json:",omitempty"`
	// Do says what to do about Err.
	Do string `json:",omitempty"`
	// Arch is as Go calls it.
	Arch string `json:",omitempty"`
	// Reached is the machine's own address that ssh has come by.
	Reached string `json:",omitempty"`
	// Ahead is how far its clock is ahead of this one, give or take Unsure.
	Ahead, Unsure time.Duration
	Facts
	// Cut are the machines and ports that it can't reach.
	Cut []Cut `json:",omitempty"`
	// Taken are the ports of ours that another program has.
	Taken []string `json:",omitempty"`
}

// Cut is a port of another machine that can't be reached.
type Cut struct {
	To, Addr, Port, Why string
	// Large tells that only large packets are lost.
	Large bool `json:",omitempty"`
}

// World is what was seen of all machines, by host.
type World map[string]*Sight
