package console

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"skep/cluster"
)

// counting gives randomness that tests know.
type counting struct{ next byte }

func (c *counting) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = c.next
	}
	c.next++
	return len(p), nil
}

func TestCodes_AreGoodOnceAndForAMinute(t *testing.T) {
	clock := &manual{at: noon}
	codes := &Codes{Now: clock.now, Random: &counting{}}
	fresh := func(grant string) string {
		t.Helper()
		code, err := codes.New(grant)
		if err != nil {
			t.Fatal(err)
		}
		return code
	}
	first, second, old := fresh(GrantRead), fresh(GrantWrite), fresh(GrantRead)
	for _, c := range []struct{ code, want string }{{first, GrantRead}, {second, GrantWrite}} {
		if grant, err := codes.Redeem(c.code); err != nil || grant != c.want {
			t.Errorf("got %q, %v, want %q", grant, err, c.want)
		}
		if grant, err := codes.Redeem(c.code); err == nil {
			t.Errorf("a code was good twice, for %q", grant)
		}
	}
	if _, err := codes.Redeem("guessed"); err == nil {
		t.Error("a code was good that nobody gave")
	}
	clock.set(noon.Add(CodeLife))
	if _, err := codes.Redeem(old); err == nil {
		t.Error("a code was good after its time")
	}
	for range maxCodes {
		fresh(GrantRead)
	}
	if _, err := codes.New(GrantRead); err == nil {
		t.Error("there are codes without end")
	}
	clock.set(noon.Add(2 * CodeLife))
	fresh(GrantRead)
}

// door is a Proxy before a node that tells what arrives.
type door struct {
	t     *testing.T
	clock *manual
	proxy *Proxy
	// arrived are the requests that the node got.
	arrived []*http.Request
	holds   atomic.Bool
}

func newDoor(t *testing.T) *door {
	d := &door{t: t, clock: &manual{at: noon}}
	d.proxy = &Proxy{
		Port: "4321", To: &url.URL{Scheme: "http", Host: "skep"}, Now: d.clock.now, Random: &counting{},
		Redeem: func(_ context.Context, code string) (Access, error) {
			if code == GrantRead || code == GrantWrite {
				return Access{Grant: code}, nil
			}
			return Access{}, cluster.Errorf(cluster.ErrDenied, "this code was <used>")
		},
	}
	d.proxy.Transport = roundTrip(func(r *http.Request) (*http.Response, error) {
		d.arrived = append(d.arrived, r)
		w := httptest.NewRecorder()
		w.Header().Set("Set-Cookie", "of=the-node")
		w.Header().Set("Content-Security-Policy", contentPolicy)
		w.WriteHeader(http.StatusOK)
		return w.Result(), nil
	})
	return d
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func (d *door) ask(method, path string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "http://127.0.0.1:4321"+path, nil)
	if method == http.MethodPost {
		r.Header.Set("Origin", "http://127.0.0.1:4321")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		switch headers[i] {
		case "Host":
			r.Host = headers[i+1]
		case "Body":
			r = r.Clone(r.Context())
			r.Body = http.NoBody
			r.Body = httptest.NewRequest(method, "/", strings.NewReader(headers[i+1])).Body
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		default:
			r.Header.Set(headers[i], headers[i+1])
		}
	}
	w := httptest.NewRecorder()
	d.proxy.ServeHTTP(w, r)
	return w
}

// enter shows a code, and returns the cookie.
func (d *door) enter(code string) string {
	d.t.Helper()
	w := d.ask("POST", "/login", "Body", "code="+code)
	if w.Code != http.StatusSeeOther || w.Header().Get("Location") != Root {
		d.t.Fatalf("got %d %s", w.Code, w.Body)
	}
	cookies := w.Result().Cookies()
	if len(cookies) != 1 || !cookies[0].HttpOnly || cookies[0].SameSite != http.SameSiteStrictMode || !strings.Contains(cookies[0].Name, "4321") || len(cookies[0].Value) < 40 {
		d.t.Fatalf("got the cookies %v", cookies)
	}
	return cookies[0].Name + "=" + cookies[0].Value
}

func TestProxy_LetsInWhoHasACode(t *testing.T) {
	d := newDoor(t)
	for _, path := range []string{Root, Root + "services"} {
		if w := d.ask("GET", path); w.Code != http.StatusSeeOther || w.Header().Get("Location") != "/" {
			t.Errorf("%s without a cookie: %d %s", path, w.Code, w.Body)
		}
	}
	for _, headers := range [][]string{{"Cookie", "skep_console_4321=guessed"}, {partsHeader, "map"}} {
		if w := d.ask("POST", Root+"services/x/scale", headers...); w.Code != http.StatusUnauthorized {
			t.Errorf("with %v: %d", headers, w.Code)
		}
	}
	if w := d.ask("GET", Root+"live"); w.Code != http.StatusUnauthorized {
		t.Errorf("the stream without a cookie: %d", w.Code)
	}
	if w := d.ask("POST", "/login", "Body", "code=wrong"); w.Code != http.StatusForbidden || !strings.Contains(w.Body.String(), "This code was &lt;used&gt;.") || len(w.Result().Cookies()) != 0 {
		t.Errorf("a wrong code: %d %s", w.Code, w.Body)
	}
	if len(d.arrived) > 0 {
		t.Fatalf("the node was asked for %v", d.arrived[0].URL)
	}
	if w := d.ask("GET", "/"); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), `action="/login"`) {
		t.Errorf("the way in: %d %s", w.Code, w.Body)
	}
	for _, grant := range []string{GrantRead, GrantWrite} {
		cookie := d.enter(grant)
		w := d.ask("GET", Root+"services?q=x", "Cookie", cookie, "Origin", "http://127.0.0.1:4321", "Sec-Fetch-Site", "same-origin", GrantHeader, GrantWrite)
		if w.Code != http.StatusOK || w.Header().Get("Content-Security-Policy") != contentPolicy || len(w.Header().Values("Content-Security-Policy")) != 1 || w.Header().Get("Set-Cookie") != "" {
			t.Errorf("got %d %v", w.Code, w.Header())
		}
		r := d.arrived[len(d.arrived)-1]
		if r.URL.String() != "http://skep/console/services?q=x" || r.Header.Get(GrantHeader) != grant || r.Header.Get("Origin") != "" || r.Header.Get("Cookie") != "" || r.Header.Get("Sec-Fetch-Site") != "" {
			t.Errorf("the node was asked for %v with %v", r.URL, r.Header)
		}
	}
}

func TestProxy_RefusesOtherPages(t *testing.T) {
	d := newDoor(t)
	cookie := d.enter(GrantWrite)
	for _, c := range []struct {
		method, path string
		headers      []string
		want         int
	}{
		{"GET", Root, nil, 200},
		{"GET", Root, []string{"Host", "localhost:4321"}, 200},
		{"GET", Root, []string{"Host", "evil.example.org:4321"}, 403},
		{"GET", Root, []string{"Host", "127.0.0.1:80"}, 403},
		{"GET", Root, []string{"Host", "127.0.0.1"}, 403},
		{"GET", "/", []string{"Host", "evil.example.org"}, 403},
		{"GET", Root, []string{"Origin", "http://evil.example.org"}, 403},
		{"GET", Root, []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "no-cors"}, 403},
		{"GET", Root + "live", []string{"Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode", "cors"}, 403},
		{"GET", Root, []string{"Sec-Fetch-Site", "same-origin", "Sec-Fetch-Mode", "cors"}, 200},
		{"POST", Root + "x", nil, 200},
		{"POST", Root + "x", []string{"Sec-Fetch-Site", "same-origin"}, 200},
		{"POST", Root + "x", []string{"Origin", "http://evil.example.org"}, 403},
		{"POST", Root + "x", []string{"Origin", "http://127.0.0.1:4322"}, 403},
		{"POST", Root + "x", []string{"Origin", "null"}, 403},
		{"POST", Root + "x", []string{"Origin", ""}, 403},
		{"POST", Root + "x", []string{"Sec-Fetch-Site", "same-site"}, 403},
		{"POST", "/login", []string{"Origin", "http://evil.example.org"}, 403},
		{"DELETE", Root + "x", nil, 403},
		{"PUT", Root + "x", nil, 403},
		{"GET", "/containers/json", nil, 404},
		{"GET", "/v1.41/console/", nil, 404},
		{"GET", "/console", nil, 404},
		{"GET", Root + "../containers/json", nil, 404},
		{"GET", Root + "%2e%2e/containers/json", nil, 404},
		{"GET", Root + "x//y", nil, 404},
		{"POST", "/services/create", nil, 404},
	} {
		if w := d.ask(c.method, c.path, append([]string{"Cookie", cookie}, c.headers...)...); w.Code != c.want {
			t.Errorf("%s %s with %v: got %d %s, want %d", c.method, c.path, c.headers, w.Code, w.Body, c.want)
		}
	}
}

func TestTokens_AreLinesOfAFile(t *testing.T) {
	const first, second = "0123456789abcdef", "another-token-here"
	tokens, err := ParseTokens([]byte("# who may look\n\nread " + first + " wall\n  write\t" + second + "\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	for token, want := range map[string][2]string{first: {GrantRead, "wall"}, second: {GrantWrite, ""}} {
		a, ok := tokens.Find(token)
		if !ok || a.Grant != want[0] || a.Who != want[1] || !tokens.Hold(a) {
			t.Errorf("%q is %v, %v, want %v", token, a, ok, want)
		}
		if (Tokens{}).Hold(a) {
			t.Errorf("%q holds though it isn't there any more", token)
		}
	}
	for _, wrong := range []string{"", "read", first[1:], "wall", first + " "} {
		if _, ok := tokens.Find(wrong); ok {
			t.Errorf("%q lets in", wrong)
		}
	}
	if !(Tokens{}).Hold(Access{Grant: GrantRead}) {
		t.Error("a code's session needs a token")
	}
	for text, says := range map[string]string{
		"read " + first[1:]:             "line 1: the token has 15 characters",
		"\nadmin " + first:              "line 2: want",
		"read":                          "line 1: want",
		"read " + first + " ann berlin": "line 1: want",
		first:                           "line 1: want",
		strings.Repeat("read "+first+"\n", maxTokens+1): "more than 1000",
	} {
		if _, err := ParseTokens([]byte(text)); err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), first[1:]) {
			t.Errorf("%.30q: %v, want %q and no token", text, err, says)
		}
	}
}

// newPort is a door for browsers of other machines.
func newPort(t *testing.T) *door {
	d := newDoor(t)
	d.proxy.Knows = func(host string) bool { return host == "192.0.2.1" || host == "skep.example.org" }
	d.proxy.Here = func(w http.ResponseWriter, r *http.Request, a Access) { d.arrived = append(d.arrived, r) }
	return d
}

func TestProxy_OfOtherMachines(t *testing.T) {
	d := newPort(t)
	at := []string{"Host", "192.0.2.1:2378", "Origin", "https://192.0.2.1:2378"}
	enter := func(code string, more ...string) *httptest.ResponseRecorder {
		return d.ask("POST", "/login", append(append([]string{"Body", "code=" + code}, at...), more...)...)
	}
	w := enter(GrantWrite)
	cookies := w.Result().Cookies()
	if w.Code != http.StatusSeeOther || len(cookies) != 1 || !cookies[0].Secure || cookies[0].Name != "__Host-skep_console_4321" || cookies[0].Path != "/" || cookies[0].Domain != "" {
		t.Fatalf("got %d %v %s", w.Code, cookies, w.Body)
	}
	cookie := cookies[0].Name + "=" + cookies[0].Value
	for _, c := range []struct {
		host, origin string
		want         int
	}{
		{"192.0.2.1:2378", "https://192.0.2.1:2378", 200},
		{"skep.example.org", "https://skep.example.org", 200},
		{"192.0.2.1:2378", "http://192.0.2.1:2378", 403},
		{"192.0.2.1:2378", "https://192.0.2.1", 403},
		{"evil.example.org:2378", "https://evil.example.org:2378", 403},
		{"127.0.0.1:4321", "http://127.0.0.1:4321", 403},
	} {
		if w := d.ask("POST", Root+"x", "Cookie", cookie, "Host", c.host, "Origin", c.origin); w.Code != c.want {
			t.Errorf("%s by a page of %s: %d %s, want %d", c.host, c.origin, w.Code, w.Body, c.want)
		}
	}
	if r := d.arrived[0]; r.Header.Get(GrantHeader) != GrantWrite || r.Header.Get("Cookie") != "" || r.Header.Get("Origin") != "" {
		t.Errorf("the node was asked with %v", r.Header)
	}
	if w := d.ask("GET", "/", "Host", "192.0.2.1:2378"); !strings.Contains(w.Body.String(), "--console-token-file") {
		t.Errorf("it asks for %s", w.Body)
	}

	// Who guesses has five tries in a minute; what is right doesn't count.
	for range 2 * maxTries {
		if w := enter(GrantRead); w.Code != http.StatusSeeOther {
			t.Fatalf("got %d %s", w.Code, w.Body)
		}
	}
	for i := range maxTries + 2 {
		want := http.StatusForbidden
		if i >= maxTries {
			want = http.StatusTooManyRequests
		}
		if w := enter("wrong"); w.Code != want {
			t.Errorf("try %d: %d, want %d", i+1, w.Code, want)
		}
	}
	if w := enter(GrantRead); w.Code != http.StatusTooManyRequests {
		t.Errorf("a right one after too many wrong ones: %d", w.Code)
	}
	d.clock.set(noon.Add(time.Minute))
	if w := enter(GrantRead); w.Code != http.StatusSeeOther {
		t.Errorf("a minute later: %d", w.Code)
	}

	d.proxy.Holds = func(Access) bool { return false }
	if w := d.ask("GET", Root, "Cookie", cookie, "Host", "192.0.2.1:2378"); w.Code != http.StatusSeeOther || w.Header().Get("Location") != "/" {
		t.Errorf("whose token is gone gets %d", w.Code)
	}
}

func TestTries_TellNetworksApart(t *testing.T) {
	for _, c := range []struct {
		one, other string
		same       bool
	}{
		{"192.0.2.1:1", "192.0.2.1:2", true},
		{"192.0.2.1:1", "[::ffff:192.0.2.1]:2", true},
		{"192.0.2.1:1", "192.0.2.2:1", false},
		{"[2001:db8::1]:1", "[2001:db8::2]:1", true},
		{"[2001:db8:0:1::1]:1", "[2001:db8::1]:1", false},
		{"[fe80::1%eth0]:1", "[fe80::2%eth1]:1", true},
	} {
		if same := sourceOf(c.one) == sourceOf(c.other); same != c.same {
			t.Errorf("%s and %s: %v, want %v", c.one, c.other, same, c.same)
		}
	}
	var all tries
	for i := range maxTriers {
		if !all.take(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 32), noon) {
			t.Fatalf("%d is one too many", i)
		}
	}
	if all.take(netip.MustParsePrefix("192.0.2.1/32"), noon) {
		t.Error("there is no end of addresses")
	}
}

func TestProxy_EndsSessions(t *testing.T) {
	d := newDoor(t)
	cookie := d.enter(GrantRead)
	d.clock.set(noon.Add(sessionLife - time.Second))
	if w := d.ask("GET", Root, "Cookie", cookie); w.Code != http.StatusOK {
		t.Errorf("got %d", w.Code)
	}
	d.clock.set(noon.Add(sessionLife))
	if w := d.ask("GET", Root, "Cookie", cookie); w.Code != http.StatusSeeOther {
		t.Errorf("after its end: got %d", w.Code)
	}
	for range maxSessions {
		d.enter(GrantRead)
	}
	if w := d.ask("POST", "/login", "Body", "code="+GrantRead); w.Code != http.StatusServiceUnavailable {
		t.Errorf("one more than there may be: %d", w.Code)
	}
}

func TestConsole_ShowsOnlyByAGrant(t *testing.T) {
	b := shop(t)
	for _, grant := range []string{"", "x", "READ"} {
		if w := b.get(Root, GrantHeader, grant); w.Code != http.StatusForbidden || strings.Contains(w.Body.String(), "shop") {
			t.Errorf("with %q: %d %s", grant, w.Code, w.Body)
		}
	}
	if w := b.ask("POST", Root+"services/shop_web/scale", "replicas=9"); w.Code != http.StatusForbidden || len(b.asked) > 0 {
		t.Errorf("a change by who may read: %d %s", w.Code, w.Body)
	}
	w := b.get(Root)
	if w.Code != http.StatusOK || w.Header().Get("Content-Security-Policy") != contentPolicy {
		t.Errorf("got %d %v", w.Code, w.Header())
	}
}
