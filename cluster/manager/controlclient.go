package manager

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"skep/cluster"
)

// errElsewhere is answered by a manager that doesn't lead.
type errElsewhere struct{ addr string }

func (e errElsewhere) Error() string { return "the leader is at " + e.addr }

// ControlClient asks the leader's control port for admission and certificates, on behalf
// of a node.
type ControlClient struct {
	Network Network
	// TLS is what the asker shows and trusts, RenewTLS the same to ask for a certificate.
	TLS, RenewTLS *tls.Config
	// Own gives the asker's own manager, which is asked first; nil while there is none.
	Own func() *Manager
	// Build is which skep the node runs.
	Build cluster.Build
	// Managers are the control addresses to begin with.
	Managers []string
}

// Join asks for admission.
func (a ControlClient) Join(ctx context.Context, request JoinRequest) (*Admission, error) {
	request.Build = a.Build
	return call[Admission](ctx, a, "/v1/join", request)
}

// Renew asks for a new certificate.
func (a ControlClient) Renew(ctx context.Context, csr []byte) (*Admission, error) {
	a.TLS = a.RenewTLS
	return call[Admission](ctx, a, "/v1/renew", RenewRequest{CSR: csr, Build: a.Build})
}

// Ready tells that a manager listens at addr.
func (a ControlClient) Ready(ctx context.Context, addr, lineage string) (*Admission, error) {
	return call[Admission](ctx, a, "/v1/manager", ReadyRequest{Addr: addr, Build: a.Build, Lineage: lineage})
}

// Here tells each of the managers, not the leader only, where the asker's manager is.
func (a ControlClient) Here(ctx context.Context, addr string) {
	body, err := cluster.Encode(ReadyRequest{Addr: addr})
	if err != nil {
		return
	}
	var told sync.WaitGroup
	for _, manager := range a.Managers {
		told.Go(func() { _, _ = a.post(ctx, manager, "/v1/here", body) }) // Who wasn't reached is told again.
	}
	told.Wait()
}

// Lost has the vote of the asker's manager taken away, whose database is lost. When
// it returns nil, nobody counts on what that manager knew, and it will get a copy of the
// database of that lineage.
func (a ControlClient) Lost(ctx context.Context) (lineage string, err error) {
	admission, err := call[Admission](ctx, a, "/v1/lost", struct{}{})
	if err != nil {
		return "", err
	}
	return admission.Lineage, nil
}

// Leave tells that the node leaves the cluster for good.
func (a ControlClient) Leave(ctx context.Context) error {
	_, err := call[Admission](ctx, a, "/v1/leave", struct{}{})
	return err
}

// Attach asks for a container's place in a network.
func (a ControlClient) Attach(ctx context.Context, request cluster.AttachRequest) (*cluster.Attached, error) {
	return call[cluster.Attached](ctx, a, "/v1/attach", request)
}

// Detach tells that containers are gone, or have left their networks.
func (a ControlClient) Detach(ctx context.Context, ids []string) error {
	for some := range slices.Chunk(ids, cluster.MaxDetach) {
		if _, err := call[cluster.DetachRequest](ctx, a, "/v1/detach", cluster.DetachRequest{IDs: some}); err != nil {
			return err
		}
	}
	return nil
}

// call tries the managers in turn, following to the leader, until ctx ends. What
// trying again can't mend is returned at once.
func call[T any](ctx context.Context, a ControlClient, path string, request any) (*T, error) {
	body, err := cluster.Encode(request)
	if err != nil {
		return nil, err
	}
	last := cluster.Errorf(cluster.ErrUnavailable, "no manager's address is known")
	for wait := askFirst; ; wait = min(2*wait, askLast) {
		managers := a.Managers
		if own := a.own(); own != nil {
			answer, err := own.answerOwn(ctx, request)
			if err == nil {
				return answer.(*T), nil
			}
			if final(err) {
				return nil, err
			}
			if peer, self, ok, _ := own.leads(); ok && !self {
				managers = append([]string{peer.Addr}, managers...)
			}
		}
		for _, addr := range managers {
			data, err := a.post(ctx, addr, path, body)
			var elsewhere errElsewhere
			if errors.As(err, &elsewhere) {
				data, err = a.post(ctx, elsewhere.addr, path, body)
			}
			if err == nil {
				answer := new(T)
				if err = cluster.Decode(data, answer); err == nil {
					return answer, nil
				}
			}
			if final(err) {
				return nil, err
			}
			if ctx.Err() == nil {
				last = err
			}
		}
		if !cluster.Sleep(ctx, wait) {
			return nil, fmt.Errorf("%w (%w)", last, ctx.Err())
		}
	}
}

func (a ControlClient) own() *Manager {
	if a.Own == nil {
		return nil
	}
	return a.Own()
}

// final tells whether trying again can't mend it.
func final(err error) bool {
	return errors.Is(err, cluster.ErrDenied) || errors.Is(err, cluster.ErrRemoved) || errors.Is(err, cluster.ErrLineage) || errors.Is(err, cluster.ErrVersion) || errors.Is(err, cluster.ErrInvalid) || errors.Is(err, cluster.ErrPrecondition)
}

// askFirst to askLast are the pauses before the managers are asked again, doubling: after a
// power cut all nodes may ask managers that can't answer yet.
const askFirst, askLast = 100 * time.Millisecond, time.Second

func (a ControlClient) post(ctx context.Context, addr, path string, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialTLSContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			return Dial(ctx, a.Network, addr, a.TLS)
		},
	}}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+addr+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("ask manager %s: %w: %w", addr, cluster.ErrInvalid, err)
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("ask manager %s: %w", addr, err)
	}
	return readAnswer(addr, response)
}

// readAnswer reads what a manager answers, or why it refuses, and closes it.
func readAnswer(addr string, response *http.Response) ([]byte, error) {
	defer response.Body.Close()
	data, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return nil, fmt.Errorf("ask manager %s: %w", addr, err)
	}
	switch response.StatusCode {
	case http.StatusOK:
		return data, nil
	case statusMisdirected:
		return nil, errElsewhere{response.Header.Get(leaderHeader)}
	}
	var refusal struct{ Message string }
	if json.Unmarshal(data, &refusal) != nil || refusal.Message == "" {
		refusal.Message = response.Status
	}
	kind := cluster.ErrUnavailable
	for _, known := range refusals {
		if known.status == response.StatusCode {
			kind = known.err
			break
		}
	}
	return nil, cluster.Errorf(kind, "ask manager %s: %s", addr, refusal.Message)
}
