package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// ask asks a URL once.
func ask(ctx context.Context, url string) (answer, error) {
	return (&client{http: &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}}).ask(ctx, url)
}

// get prints one answer, which it waits for as long as that. What isn't an answer of a guest
// is printed as it is.
func get(ctx context.Context, url string, limit []string) error {
	wait := patience
	if len(limit) > 0 {
		var err error
		if wait, err = time.ParseDuration(limit[0]); err != nil {
			return err
		}
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := (&http.Client{Timeout: wait}).Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if _, err := io.Copy(os.Stdout, response.Body); err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return errors.New(response.Status)
	}
	return nil
}

// askUDP prints one answer to a packet.
func askUDP(to string) error {
	conn, err := net.Dial("udp", to)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := fmt.Fprint(conn, "who?"); err != nil {
		return err
	}
	buf := make([]byte, 2048)
	n, err := conn.Read(buf)
	if err != nil {
		return err
	}
	fmt.Println(string(buf[:n]))
	return nil
}

// lookup prints the addresses of each name, or the names of each address, on a line of its
// own, sorted. A name that there isn't is a line, too: "-".
func lookup(ctx context.Context, names []string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	for _, name := range names {
		var found []string
		var err error
		if net.ParseIP(name) != nil {
			found, err = net.DefaultResolver.LookupAddr(ctx, name)
		} else {
			found, err = net.DefaultResolver.LookupHost(ctx, name)
		}
		if missing := new(net.DNSError); errors.As(err, &missing) && missing.IsNotFound {
			found, err = []string{"-"}, nil
		}
		if err != nil {
			return err
		}
		slices.Sort(found)
		fmt.Println(strings.Join(slices.Compact(found), " "))
	}
	return nil
}

// failure is a request that wasn't answered.
type failure struct {
	// Began is when it was sent, Ended when that was given up.
	Began, Ended time.Time
	// Kept tells whether it was sent on a connection that may have been there already.
	Kept bool
	// Task is the one that the request before it on that connection was answered by, if there was one.
	Task  string
	URL   string
	Error string
}

// seen is when a task answered: the first and last requests that it did, by when they were sent.
type seen struct {
	Count       int
	First, Last time.Time
	Version     string
}

// each is a request, as it is told of where each is.
type each struct {
	Client int
	failure
	// Answer is the name of the task that answered, or what the name stood for.
	Answer string
}

// result is what came of a load.
type result struct {
	Began, Ended time.Time
	Requests     int
	// Longest is how long the slowest request that was answered took.
	Longest time.Duration
	// Failures are the first of them, Failed is how many there were.
	Failures []failure
	Failed   int
	Tasks    map[string]seen
	Clients  map[string]int // by the address that the tasks saw
}

// mostFailures is how many failures are told of: what follows is the same.
const mostFailures = 200

// load has clients ask, each one request after the other, until ctx or the time ends. Half of
// them keep their connections. What they ask for has no effect, and no request is sent twice:
// it is a POST, which no client repeats by itself.
func load(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("load", flag.ContinueOnError)
	count := fs.Int("clients", 8, "with kept connections, and as many without")
	pause := fs.Duration("pause", 20*time.Millisecond, "between two requests of a client")
	limit := fs.Duration("for", time.Hour, "how long")
	names := fs.Bool("names", false, "look the arguments up as names, instead")
	told := fs.Bool("each", false, "print each request when it has ended, instead of what came of all")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() == 0 {
		return errors.New("load: want URLs")
	}
	ctx, cancel := context.WithTimeout(ctx, *limit)
	defer cancel()
	lines := json.NewEncoder(os.Stdout)
	total := &tally{result: result{Began: time.Now(), Tasks: map[string]seen{}, Clients: map[string]int{}}}
	var clients sync.WaitGroup
	for i := range 2 * *count {
		c := &client{keeps: i%2 == 0}
		held := map[string]string{} // the task at the other end of the connection for a URL
		c.http = &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: !c.keeps, MaxIdleConnsPerHost: 1}}
		clients.Go(func() {
			for n := i; ctx.Err() == nil; n++ {
				url := fs.Arg(n % fs.NArg())
				began := time.Now()
				var a answer
				var err error
				// What has begun is waited for, though ctx ends.
				if *names {
					a.Task, err = resolved(url)
				} else {
					a, err = c.ask(context.Background(), url)
				}
				if f := failed(c, held[url], url, began, err); *told {
					total.tell(lines, each{i, f, a.Task})
				} else {
					total.add(f, a)
				}
				if c.keeps {
					held[url] = a.Task
				}
				select {
				case <-ctx.Done():
				case <-time.After(*pause):
				}
			}
		})
	}
	fmt.Fprintln(os.Stderr, "ready")
	clients.Wait()
	if *told {
		return nil
	}
	total.Ended = time.Now()
	return lines.Encode(total.result)
}

func resolved(name string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	found, err := net.DefaultResolver.LookupHost(ctx, name)
	slices.Sort(found)
	return strings.Join(found, " "), err
}

// client is one that asks.
type client struct {
	keeps bool
	http  *http.Client
}

func (c *client) ask(ctx context.Context, url string) (a answer, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, nil)
	if err != nil {
		return a, err
	}
	response, err := c.http.Do(request)
	if err != nil {
		return a, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return a, err
	}
	if response.StatusCode != http.StatusOK {
		return a, fmt.Errorf("%s: %s", response.Status, body)
	}
	return a, json.Unmarshal(body, &a)
}

// tally is the result as it grows.
type tally struct {
	mu sync.Mutex // guards the field below
	result
}

// failed is a request that has ended now, with the error or none.
func failed(c *client, held, url string, began time.Time, err error) failure {
	f := failure{Began: began, Ended: time.Now(), Kept: c.keeps, Task: held, URL: url}
	if err != nil {
		f.Error = err.Error()
	}
	return f
}

// tell prints one request.
func (t *tally) tell(lines *json.Encoder, one each) {
	t.mu.Lock()
	defer t.mu.Unlock()
	_ = lines.Encode(one)
}

func (t *tally) add(f failure, a answer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.Requests++
	if f.Error != "" {
		t.Failed++
		if len(t.Failures) < mostFailures {
			t.Failures = append(t.Failures, f)
		}
		return
	}
	t.Longest = max(t.Longest, f.Ended.Sub(f.Began))
	s := t.Tasks[a.Task]
	if s.Count == 0 || f.Began.Before(s.First) {
		s.First = f.Began
	}
	if f.Began.After(s.Last) {
		s.Last = f.Began
	}
	s.Count++
	s.Version = a.Version
	t.Tasks[a.Task] = s
	t.Clients[a.Client]++
}
