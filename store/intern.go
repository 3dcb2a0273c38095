package store

import "skep/cluster"

// maxInterned bounds the interner: past it, it starts anew, which costs memory
// for duplicates but is never wrong.
const maxInterned = 1 << 16

// interner lets records share the strings that most of them have in common:
// decoding makes a copy for each.
type interner struct{ known map[string]string }

func newInterner() *interner { return &interner{known: make(map[string]string)} }

func (in *interner) share(text *string) {
	if *text == "" {
		return
	}
	if known, ok := in.known[*text]; ok {
		*text = known
		return
	}
	if len(in.known) >= maxInterned {
		clear(in.known)
	}
	in.known[*text] = *text
}

// object shares the strings of an object that nobody else has yet. Only tasks
// are many; what they don't share is their own ID and their container's.
func (in *interner) object(object any) {
	switch o := object.(type) {
	case *cluster.Task:
		in.share(&o.ServiceID)
		in.share(&o.NodeID)
		in.share(&o.Status.Message)
		in.share(&o.Status.Err)
	case *cluster.Revision:
		in.share(&o.ServiceID)
	case *cluster.Rollout:
		in.share(&o.ServiceID)
	case *cluster.Node:
		in.share(&o.ID)
	case *cluster.Service:
		in.share(&o.ID)
	}
}
