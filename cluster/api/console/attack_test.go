package console

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path"
	"strings"
	"sync"
	"testing"
	"time"
)

// open serves a door's proxy on a socket, before a node that records which paths it is asked for, as they are on the
// wire. The cookie is of a session that may write.
func (d *door) open() (addr, cookie string, reached func() []string) {
	var mu sync.Mutex
	var asked []string
	node := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, r.RequestURI)
		_, _ = io.Copy(io.Discard, r.Body)
	}))
	d.t.Cleanup(node.Close)
	to, err := url.Parse(node.URL)
	if err != nil {
		d.t.Fatal(err)
	}
	cookie = d.enter(GrantWrite)
	d.proxy.To, d.proxy.Transport = to, http.DefaultTransport
	server := httptest.NewServer(d.proxy)
	d.t.Cleanup(server.Close)
	return server.Listener.Addr().String(), cookie, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return append([]string(nil), asked...)
	}
}

// raw sends bytes as they are and returns the status that comes back.
func raw(t *testing.T, addr, request string) int {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("%q: %v", request, err)
	}
	defer answer.Body.Close()
	return answer.StatusCode
}

// TestAttack_NothingElseOfTheNode: whatever is written on the line, the node is asked for paths of the console only,
// also when it reads them once more.
func TestAttack_NothingElseOfTheNode(t *testing.T) {
	d := newDoor(t)
	addr, cookie, reached := d.open()
	for _, target := range []string{
		"/containers/json", "/v1.41/containers/json", "/skep/v1/status", "/metrics", "/", "/console", "/consolex/", "/Console/",
		"/console/../containers/json", "/console/%2e%2e/containers/json", "/console/..%2fcontainers/json", "/console/%2e%2e%2fcontainers/json",
		"/console/x/../../containers/json", "/console/./../containers/json", "/console//containers/json", "//console/../containers/json",
		"/console/..;/containers/json", "/console/%252e%252e/containers/json", "/console/%252e%252e%252fcontainers", `/console/..\containers\json`,
		"/console/%5c..%5ccontainers", "/console/%00/../containers/json", "/console/static/../../containers/json", "/console/static/%2e%2e%2f%2e%2e%2fcontainers/json",
		"http://127.0.0.1:4321/containers/json", "http://127.0.0.1:4321/console/../containers/json", "http://skep/containers/json", "/console/?x=/../containers/json",
		"/console/services/..%2f..%2f..%2fcontainers%2fjson/logs", "*",
	} {
		for _, method := range []string{"GET", "POST", "HEAD", "CONNECT", "OPTIONS", "get"} {
			raw(t, addr, method+" "+target+" HTTP/1.1\r\nHost: 127.0.0.1:4321\r\nOrigin: http://127.0.0.1:4321\r\nCookie: "+cookie+"\r\nConnection: close\r\n\r\n")
		}
	}
	for _, asked := range reached() {
		u, err := url.Parse(asked)
		if err != nil {
			t.Errorf("the node was asked for %q: %v", asked, err)
			continue
		}
		for _, p := range []string{u.Path, strings.ReplaceAll(u.Path, `\`, "/")} {
			for range 2 { // Once more, for a node that takes escapes out of what had them taken out.
				if clean := path.Clean(p) + "/"; !strings.HasPrefix(clean, Root) {
					t.Errorf("the node was asked for %q", asked)
				}
				if again, err := url.PathUnescape(p); err == nil {
					p = again
				}
			}
		}
	}
	if n := len(reached()); n == 0 {
		t.Error("the node was asked for nothing")
	}
}

// TestAttack_Bodies: forms are small, and must come soon.
func TestAttack_Bodies(t *testing.T) {
	d := newDoor(t)
	addr, cookie, reached := d.open()
	head := func(path string) string {
		return "POST " + path + " HTTP/1.1\r\nHost: 127.0.0.1:4321\r\nOrigin: http://127.0.0.1:4321\r\nCookie: " + cookie + "\r\nContent-Type: application/x-www-form-urlencoded\r\nConnection: close\r\n"
	}
	form := func(n int) string { return "code=" + strings.Repeat("x", n) }
	for _, c := range []struct {
		what, request string
		want          int
	}{
		{"a login that says it is large", head("/login") + "Content-Length: 1000000000000\r\n\r\ncode=", http.StatusRequestEntityTooLarge},
		{"a form that says it is large", head("/console/services/x/scale") + "Content-Length: 1000000000000\r\n\r\nx=", http.StatusRequestEntityTooLarge},
		{"a login of more than a code", head("/login") + fmt.Sprintf("Content-Length: %d\r\n\r\n%s", maxLogin+6, form(maxLogin+1)), http.StatusBadRequest},
		{"a login in pieces", head("/login") + fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n", maxForm, form(maxForm-5)), http.StatusBadRequest},
		{"a form in pieces", head("/console/services/x/scale") + fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n", maxForm+1, form(maxForm-4)), http.StatusRequestEntityTooLarge},
		{"a form as large as may be", head("/console/services/x/scale") + fmt.Sprintf("Content-Length: %d\r\n\r\n%s", maxForm, form(maxForm-5)), http.StatusOK},
	} {
		if got := raw(t, addr, c.request); got != c.want {
			t.Errorf("%s: got %d, want %d", c.what, got, c.want)
		}
	}
	if n := len(reached()); n > 2 {
		t.Errorf("the node was asked %d times", n)
	}

	// One that doesn't come is waited for until a deadline, of whoever sends it.
	for _, c := range []struct {
		method, path, cookie string
		body                 bool
	}{{"POST", "/login", "", true}, {"POST", Root + "services/x/scale", "", true}, {"GET", Root, "", true}, {"GET", Root, "", false}} {
		w := &deadlines{ResponseRecorder: httptest.NewRecorder()}
		r := httptest.NewRequest(c.method, "http://127.0.0.1:4321"+c.path, nil)
		if c.body {
			r.Body, r.ContentLength = http.NoBody, 100
		}
		r.Header.Set("Origin", "http://127.0.0.1:4321")
		d.proxy.ServeHTTP(w, r)
		if got := !w.read.IsZero() && time.Until(w.read) <= bodyWait; got != c.body {
			t.Errorf("%s %s with a body %v: it has until %v", c.method, c.path, c.body, w.read)
		}
	}
}

// deadlines notes until when a body may come.
type deadlines struct {
	*httptest.ResponseRecorder
	read time.Time
}

func (d *deadlines) SetReadDeadline(at time.Time) error {
	d.read = at
	return nil
}

// TestAttack_ACookieOfAnotherCommand: a session ends with the command that began it, also when another one has its port.
func TestAttack_ACookieOfAnotherCommand(t *testing.T) {
	before := newDoor(t)
	cookie := before.enter(GrantWrite)
	if w := before.ask("GET", Root, "Cookie", cookie); w.Code != http.StatusOK {
		t.Fatalf("got %d", w.Code)
	}
	after := newDoor(t)
	for _, request := range [][2]string{{"GET", Root}, {"GET", Root + "live"}, {"POST", Root + "services/x/scale"}} {
		if w := after.ask(request[0], request[1], "Cookie", cookie); w.Code == http.StatusOK {
			t.Errorf("%v: %d", request, w.Code)
		}
	}
	if len(after.arrived) > 0 {
		t.Errorf("the node was asked for %v", after.arrived[0].URL)
	}
}

// TestGate_EndsStreams: what is open when a session ends, ends at its next word.
func TestGate_EndsStreams(t *testing.T) {
	for name, end := range map[string]func(*door){
		"its time is over":    func(d *door) { d.clock.set(noon.Add(sessionLife)) },
		"its token is gone":   func(d *door) { d.holds.Store(false); d.clock.set(noon.Add(gateEvery)) },
		"nothing has changed": func(d *door) { d.clock.set(noon.Add(sessionLife - 1)) },
	} {
		d := newPort(t)
		d.holds.Store(true)
		d.proxy.Holds = func(Access) bool { return d.holds.Load() }
		w := d.ask("POST", "/login", "Body", "code="+GrantRead, "Host", "192.0.2.1:2378", "Origin", "https://192.0.2.1:2378")
		cookies := w.Result().Cookies()
		if len(cookies) != 1 {
			t.Fatalf("got %d %s", w.Code, w.Body)
		}
		var before, after error
		d.proxy.Here = func(w http.ResponseWriter, r *http.Request, _ Access) {
			_, before = io.WriteString(w, "one")
			end(d)
			_, after = io.WriteString(w, "two")
			if _, again := io.WriteString(w, "three"); (again == nil) != (after == nil) {
				t.Errorf("%s: %v, then %v", name, after, again)
			}
		}
		d.ask("GET", Root+"live", "Cookie", cookies[0].Name+"="+cookies[0].Value, "Host", "192.0.2.1:2378")
		if goesOn := name == "nothing has changed"; before != nil || (after == nil) != goesOn || !goesOn && !errors.Is(after, errGateClosed) {
			t.Errorf("%s: %v, %v", name, before, after)
		}
	}
}

// TestGate_AsksSeldom: what is asked may read a file.
func TestGate_AsksSeldom(t *testing.T) {
	clock, n := &manual{at: noon}, 0
	w := Gate(httptest.NewRecorder(), clock.now, func() bool { n++; return true })
	for i := range 100 {
		clock.set(noon.Add(time.Duration(i) * gateEvery / 10))
		if _, err := io.WriteString(w, "x"); err != nil {
			t.Fatal(err)
		}
	}
	if n != 9 {
		t.Errorf("it was asked %d times", n)
	}
	if err := http.NewResponseController(w).Flush(); err != nil {
		t.Error(err)
	}
}

// TestAttack_CodesRace: of many browsers that show the same code at once, one is let in.
func TestAttack_CodesRace(t *testing.T) {
	codes := &Codes{Now: (&manual{at: noon}).now, Random: &counting{}}
	code, err := codes.New(GrantWrite)
	if err != nil {
		t.Fatal(err)
	}
	d := newDoor(t)
	d.proxy.Redeem = func(_ context.Context, shown string) (Access, error) {
		grant, err := codes.Redeem(shown)
		return Access{Grant: grant}, err
	}
	var all sync.WaitGroup
	let := make(chan int, 50)
	for range cap(let) {
		all.Go(func() {
			if w := d.ask("POST", "/login", "Body", "code="+code); w.Code == http.StatusSeeOther {
				let <- w.Code
			}
		})
	}
	all.Wait()
	if len(let) != 1 {
		t.Errorf("%d browsers were let in", len(let))
	}
}

// TestPolicy_IsStrict says the policy once more: it is compared with itself elsewhere.
func TestPolicy_IsStrict(t *testing.T) {
	const want = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; form-action 'self'; base-uri 'none'"
	b, d := shop(t), newDoor(t)
	for name, header := range map[string]http.Header{
		"page": b.get(Root).Header(), "nothing": b.get(Root + "nonsense").Header(), "login": d.ask("GET", "/").Header(), "refused": d.ask("GET", "/", "Host", "evil").Header(),
	} {
		if header.Get("Content-Security-Policy") != want || header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: got %v", name, header)
		}
	}
}
