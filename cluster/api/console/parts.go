package console

import (
	"sync"
	"time"
)

// partsHeader asks for sections of a page, by their IDs, instead of all of it.
const partsHeader = "Skep-Parts"

const (
	// partAge is for how long what was made for one tab is given to others.
	partAge = 400 * time.Millisecond
	// keptParts is how much of it is kept: 32 pages of at most some hundred kB.
	keptParts = 32
)

// partCache makes what many tabs ask for once.
type partCache struct {
	mu   sync.Mutex // guards kept
	kept map[string]*part
}

type part struct {
	mu   sync.Mutex // held while it is made; guards the rest
	at   time.Time
	body []byte
}

// get returns what make made a moment ago, or makes it.
func (p *partCache) get(key string, now func() time.Time, make func() ([]byte, error)) ([]byte, error) {
	one := p.find(key)
	one.mu.Lock()
	defer one.mu.Unlock()
	if age := now().Sub(one.at); one.body != nil && age >= 0 && age < partAge {
		return one.body, nil
	}
	at := now()
	body, err := make()
	if err != nil {
		one.body = nil
		return nil, err
	}
	one.at, one.body = at, body
	return body, nil
}

// find is the part of that key; when there are too many, any other goes.
func (p *partCache) find(key string) *part {
	p.mu.Lock()
	defer p.mu.Unlock()
	if one := p.kept[key]; one != nil {
		return one
	}
	if p.kept == nil {
		p.kept = map[string]*part{}
	}
	for other := range p.kept {
		if len(p.kept) < keptParts {
			break
		}
		delete(p.kept, other)
	}
	p.kept[key] = &part{}
	return p.kept[key]
}

// forget drops all: something was changed that the next page is to show.
func (p *partCache) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.kept)
}
