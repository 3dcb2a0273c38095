package timeline

import (
	"cmp"
	"slices"
	"time"
)

// MaxAnswer is the largest answer of a manager, in bytes as it is sent.
const MaxAnswer = 1 << 20

// Answer is what a manager tells of itself, and what the one that asked knows of the asking.
type Answer struct {
	// Now is the answering manager's clock when it answered.
	Now     time.Time `cbor:"1,keyasint"`
	Records []Record  `cbor:"2,keyasint"`
	// Role and Term are what it is now.
	Role string `cbor:"3,keyasint"`
	Term uint64 `cbor:"4,keyasint"`

	// NodeID and Name are the manager's. Asked and Came are when the question left and the answer came, by
	// the clock of the one that asked. Missing says why none came.
	NodeID  string    `cbor:"-"`
	Name    string    `cbor:"-"`
	Asked   time.Time `cbor:"-"`
	Came    time.Time `cbor:"-"`
	Missing string    `cbor:"-"`
}

// Timeline is what all managers did, as one of them tells.
type Timeline struct {
	// At is when it was made and Since when it begins, by the clock of the manager By, as all times in it.
	At       time.Time
	Since    time.Time `json:",omitzero"`
	By       string
	Managers []Lane
	// Names are the host names of nodes that records speak of, by ID, as far as they are known.
	Names map[string]string
	// Records are in the order of their times.
	Records []Record
}

// Lane is a manager of a Timeline.
type Lane struct {
	NodeID, Name string
	// Role and Term are what it was when it answered.
	Role string
	Term uint64
	// Offset is how much later its clock shows than that of the one that asked; 0 also when it is less than
	// what RoundTrip, the time that the exchange took, leaves uncertain.
	Offset, RoundTrip time.Duration
	// Missing says why its own records aren't here; empty when they are.
	Missing string `json:",omitempty"`
}

// Name is what to call a node: its host name, or what there is of its ID.
func (t *Timeline) Name(id string) string {
	for _, lane := range t.Managers {
		if lane.NodeID == id && lane.Name != "" {
			return lane.Name
		}
	}
	if name := t.Names[id]; name != "" {
		return name
	}
	return cut(id, 12)
}

// Merge puts the managers' answers into one row, in the asking one's time.
func Merge(answers []Answer) (lanes []Lane, records []Record) {
	for _, answer := range answers {
		lane := Lane{NodeID: answer.NodeID, Name: answer.Name, Missing: answer.Missing}
		if lane.Missing == "" {
			lane.Role, lane.Term = cut(answer.Role, maxWord), answer.Term
			lane.RoundTrip = answer.Came.Sub(answer.Asked)
			lane.Offset = answer.Now.Sub(answer.Asked.Add(lane.RoundTrip / 2))
			if lane.Offset.Abs() <= lane.RoundTrip/2 {
				lane.Offset = 0 // Clocks that agree give this, too.
			}
			if more := len(answer.Records) - MaxRecords; more > 0 {
				answer.Records = answer.Records[more:]
			}
			for _, record := range answer.Records {
				record = record.bounded()
				record.Manager, record.Time = answer.NodeID, record.Time.Add(-lane.Offset)
				records = append(records, record)
			}
		}
		lanes = append(lanes, lane)
	}
	slices.SortFunc(lanes, func(a, b Lane) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.NodeID, b.NodeID))
	})
	slices.SortFunc(records, Order)
	return lanes, records
}

// Order is that of records in a Timeline.
func Order(a, b Record) int {
	return cmp.Or(a.Time.Compare(b.Time), cmp.Compare(a.Manager, b.Manager), cmp.Compare(a.Seq, b.Seq))
}
