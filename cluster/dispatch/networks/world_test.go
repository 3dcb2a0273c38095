package networks

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/hashicorp/raft"

	"skep/cluster"
	"skep/store"
)

// instant is a log that commits at once.
type instant struct {
	store *store.Store
	index uint64
}

type outcome struct {
	index    uint64
	response any
}

func (o outcome) Error() error  { return nil }
func (o outcome) Index() uint64 { return o.index }
func (o outcome) Response() any { return o.response }

func (r *instant) Barrier(time.Duration) raft.Future { return outcome{} }

func (r *instant) Apply(data []byte, _ time.Duration) raft.ApplyFuture {
	r.index++
	return outcome{r.index, r.store.FSM().Apply(&raft.Log{Index: r.index, Data: data})}
}

// newStore is a database that takes writes until the test ends.
func newStore(t testing.TB) *store.Store {
	s := store.New(store.Config{Now: time.Now, Log: slog.New(slog.DiscardHandler), Fatal: func(err error) { t.Error(err) }})
	ctx, cancel := context.WithCancel(context.Background())
	leads, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		_ = s.Lead(ctx, &instant{store: s}, func(ctx context.Context) error { close(leads); <-ctx.Done(); return nil })
	}()
	<-leads
	t.Cleanup(func() { cancel(); <-ended })
	return s
}

func update(t testing.TB, s *store.Store, change func(tx *store.Tx) error) {
	t.Helper()
	if err := s.Update(context.Background(), change); err != nil {
		t.Fatal(err)
	}
}

// account is what an agent knows of a network, or of the nodes.
type account struct {
	To        uint64
	Network   *cluster.Network
	Settings  *cluster.NetworkSettings
	Services  map[string]cluster.NetworkService
	Endpoints map[string]cluster.NetworkEndpoint
	Nodes     map[uint16]cluster.NetworkNode
}

func newAccount() *account {
	return &account{Services: map[string]cluster.NetworkService{}, Endpoints: map[string]cluster.NetworkEndpoint{}, Nodes: map[uint16]cluster.NetworkNode{}}
}

func (a *account) take(u *cluster.NetworkUpdate) {
	if a.To = u.To; u.Network != nil {
		a.Network = u.Network
	}
	if u.Settings != nil {
		a.Settings = u.Settings
	}
	for _, s := range u.Services {
		a.Services[s.ID] = s
	}
	for _, e := range u.Endpoints {
		a.Endpoints[e.ID] = e
	}
	for _, id := range u.Gone {
		delete(a.Services, id)
		delete(a.Endpoints, id)
	}
	for _, n := range u.Nodes {
		a.Nodes[n.Index] = n
	}
	for _, index := range u.GoneNodes {
		delete(a.Nodes, index)
	}
}

// agent is an agent that keeps account, and refuses what no manager may send.
type agent struct {
	accounts map[string]*account
	// going is the ID of an account that goes on with the next update.
	going *string
	// taken and fulls are how many updates it was told, and how many of them began anew.
	taken, fulls int
}

func newAgent() *agent { return &agent{accounts: map[string]*account{}} }

func (a *agent) take(parts []cbor.RawMessage) error {
	for _, data := range parts {
		u := &cluster.NetworkUpdate{}
		if err := cluster.Decode(data, u); err != nil {
			return err
		}
		a.taken++
		if a.going != nil && (u.NetworkID != *a.going || u.Full) {
			return fmt.Errorf("an update of %q, while that of %q goes on", u.NetworkID, *a.going)
		}
		a.going = nil
		if u.More {
			a.going = &u.NetworkID
		}
		known := a.accounts[u.NetworkID]
		switch {
		case u.Dropped:
			if known == nil || !reflect.DeepEqual(u, &cluster.NetworkUpdate{NetworkID: u.NetworkID, From: known.To, To: max(known.To, u.To), Dropped: true}) {
				return fmt.Errorf("dropped by %+v, was known: %v", u, known != nil)
			}
			delete(a.accounts, u.NetworkID)
			continue
		case u.Full:
			a.fulls++
			if known != nil && known.To > u.To {
				return fmt.Errorf("account of %q as of %d after %d", u.NetworkID, u.To, known.To)
			}
			known = newAccount()
			a.accounts[u.NetworkID] = known
		case known == nil || known.To != u.From:
			return fmt.Errorf("a difference of %q from %d to %d; known: %+v", u.NetworkID, u.From, u.To, known)
		}
		known.take(u)
	}
	return nil
}

// accountIn is the whole account of a network in a view.
func accountIn(view store.View, networkID string) *account {
	a := newAccount()
	u := fullUpdate(view, networkID)
	if u == nil {
		return nil
	}
	data, err := cluster.Encode(u)
	if err != nil {
		panic(err)
	}
	if u = new(cluster.NetworkUpdate); cluster.Decode(data, u) == nil {
		a.take(u)
	}
	return a
}

// differs says how what the agent knows differs from what it should.
func (a *agent) differs(view store.View, networkIDs []string) string {
	if got := slices.Sorted(maps.Keys(a.accounts)); !slices.Equal(got, networkIDs) {
		return fmt.Sprintf("it hears of %q, want %q", got, networkIDs)
	}
	for _, id := range networkIDs {
		want := accountIn(view, id)
		want.To = a.accounts[id].To
		if got := a.accounts[id]; !reflect.DeepEqual(got, want) {
			return fmt.Sprintf("network %q: it knows\n%+v, want\n%+v", id, got, want)
		}
	}
	return ""
}
