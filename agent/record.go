package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

// recordFormat is the version of the record.
const recordFormat = 1

// Writing the record begins recordDelay after the first change that it lacks, and
// takes in all changes until then; so a burst is one write.
const recordDelay = 100 * time.Millisecond

// recordNetworksDelay is the same for what managers tell of networks, which may be much and change
// often. What the record lacks then, the node's plane has.
const recordNetworksDelay = 2 * time.Second

// remembered is what the record holds.
//
// It may lag behind by a write, which is safe: every step can be repeated, since
// the driver finds a task's container by the task's ID. A task whose last steps
// are missing goes through them again and finds its container prepared, started
// or ended. A container whose task is missing waits, untouched, until a manager
// has told the complete set. A status that is missing, managers know already or
// learn from the container, which stays until the task's record is gone.
type remembered struct {
	Format int `cbor:"1,keyasint"`
	// Newest is as in set.
	Newest      uint64                `cbor:"2,keyasint"`
	Tasks       []rememberedTask      `cbor:"3,keyasint"`
	Revisions   []*cluster.Revision   `cbor:"4,keyasint"`
	Described   bool                  `cbor:"5,keyasint"`
	Description swarm.NodeDescription `cbor:"6,keyasint"`
	// Machine is the part of Config.Run that changes when the machine starts anew.
	Machine string `cbor:"7,keyasint,omitempty"`
	// Networks are what managers told of networks, and Kept the IDs of those that the engine has.
	Networks []*account `cbor:"8,keyasint,omitempty"`
	Kept     []string   `cbor:"9,keyasint,omitempty"`
	// Engine is what the engine calls itself.
	Engine string `cbor:"10,keyasint,omitempty"`
	// Uses are the addresses that the machine had in use.
	Uses []cluster.AddressUse `cbor:"11,keyasint,omitempty"`
}

// rememberedTask is one task with the last status of its own.
type rememberedTask struct {
	Task     *cluster.Task      `cbor:"1,keyasint"`
	Status   cluster.TaskStatus `cbor:"2,keyasint"`
	Removing bool               `cbor:"3,keyasint,omitempty"`
	// Attached are the places in networks that its container has.
	Attached []cluster.Address `cbor:"4,keyasint,omitempty"`
}

// remember reads the record.
func (a *Agent) remember() (*remembered, error) {
	r := &remembered{Format: recordFormat}
	if a.cfg.Record == nil {
		return r, nil
	}
	data, err := a.cfg.Record.Read()
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the agent's record: %w", err)
	}
	if err := cluster.Decode(data, r); err != nil {
		return nil, fmt.Errorf("read the agent's record: %w", err)
	}
	if r.Format > recordFormat {
		return nil, fmt.Errorf("read the agent's record: it has format %d, this agent knows %d; run the newer version: %w",
			r.Format, recordFormat, cluster.ErrUnsupported)
	}
	return r, nil
}

// machine is the part of the run that is the machine's.
func (a *Agent) machine() string {
	machine, _, _ := strings.Cut(a.cfg.Run, ".")
	return machine
}

// Save has the record written again, soon.
func (a *Agent) Save() { a.touch() }

// touch says that the record lacks something.
func (a *Agent) touch() {
	cluster.Notify(a.dirty)
}

// touchNetworks says that the record lacks something of networks.
func (s *taskSet) touchNetworks() {
	if !s.touching {
		s.touching = true
		time.AfterFunc(recordNetworksDelay, func() {
			s.agent.post(func(s *taskSet) { s.touching = false })
			s.agent.touch()
		})
	}
}

// record writes the record after changes, one write at a time.
func (a *Agent) record(ctx context.Context) {
	for {
		select {
		case <-a.dirty:
		case <-ctx.Done():
			return
		}
		cluster.Sleep(ctx, recordDelay)
		select {
		case <-a.dirty:
		default:
		}
		if err := a.writeRecord(); err != nil {
			a.log.Error("the agent's record will be written again", "error", err)
			cluster.Sleep(ctx, a.jitter(retryLast))
			a.touch()
		}
	}
}

// writeRecord writes down what is held now. Only the copying of references
// happens in the holder; encoding and disk don't hold up anybody.
func (a *Agent) writeRecord() error {
	if a.cfg.Record == nil {
		return nil
	}
	r := remembered{Format: recordFormat, Machine: a.machine()}
	a.call(func(s *taskSet) {
		r.Newest, r.Described, r.Description, r.Engine = s.newest, s.described, s.description, s.engine
		for _, t := range s.tasks {
			r.Tasks = append(r.Tasks, rememberedTask{Task: t.assignment.Task, Status: t.status, Removing: t.removing, Attached: t.attached})
		}
		for _, revision := range s.usedRevisions() {
			r.Revisions = append(r.Revisions, revision)
		}
		r.Networks = slices.Collect(maps.Values(s.networks.accounts))
		r.Kept, r.Uses = slices.Collect(maps.Keys(s.networks.kept)), s.networks.uses
	})
	data, err := cluster.Encode(&r)
	if err != nil {
		return fmt.Errorf("write the agent's record: %w", err)
	}
	if err := a.cfg.Record.Write(data); err != nil {
		return fmt.Errorf("write the agent's record: %w", err)
	}
	return nil
}
