package console

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"html/template"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	pathpkg "path"
	"strings"
	"sync"
	"time"
)

const (
	// sessionLife is for how long a browser is let in, if the Proxy runs for so long.
	sessionLife = 12 * time.Hour
	// maxSessions is how many browsers are at most.
	maxSessions = 64
	// maxLogin is how large the form with the code may be.
	maxLogin = 4 << 10
	// bodyWait is how long a form may take to come: who never sends it would hold a connection for ever.
	bodyWait = 10 * time.Second
)

// Proxy lets browsers reach a node's console, and nothing else of the node. Everybody on the
// machine, or in the network, and every page that the browser shows, can reach the proxy's
// port, so it lets in only who has shown a code or a token.
type Proxy struct {
	// Port is the one that it is reached at.
	Port string
	// Knows tells whether a host, without a port, is a name of this machine. Such a proxy is served over TLS, to
	// browsers of other machines. Nil for one on the loopback address.
	Knows func(host string) bool
	// Redeem says what a code or a token is for.
	Redeem func(ctx context.Context, secret string) (Access, error)
	// Holds tells whether what a session began with is still so; nil for always.
	Holds func(Access) bool
	// Here serves what is let in, if the node is this process. Else To is the node: scheme and host for requests by
	// Transport.
	Here      func(http.ResponseWriter, *http.Request, Access)
	To        *url.URL
	Transport http.RoundTripper
	Now       func() time.Time
	Random    io.Reader
	// Log hears who is let in, and who isn't, by Knows; nil for nobody.
	Log *slog.Logger

	mu       sync.Mutex // guards the fields below
	sessions map[[sha256.Size]byte]session
	tries    tries
}

// session is a browser that was let in.
type session struct {
	Access
	ends time.Time
}

var loginPage = template.Must(template.ParseFS(files, "templates/login.html"))

// ServeHTTP checks who asks, and passes on what is the console's.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Content-Security-Policy", contentPolicy)
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Referrer-Policy", "same-origin")
	header.Set("Cache-Control", "no-store")
	if r.ContentLength != 0 {
		// The deadline is the connection's, so it is by its clock. Tests' writers have none.
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyWait))
	}
	if why := p.refuse(r); why != "" {
		http.Error(w, why, http.StatusForbidden)
		return
	}
	if r.ContentLength > maxForm {
		refuseLarge(w)
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	path := r.URL.Path
	switch {
	case path == "/" && r.Method == http.MethodGet:
		if p.access(r).Grant != "" && r.URL.RawQuery == "" && r.Header.Get("Sec-Fetch-Site") == "same-origin" {
			http.Redirect(w, r, Root, http.StatusSeeOther)
			return
		}
		p.showLogin(w, http.StatusOK, "")
	case path == "/login" && r.Method == http.MethodPost:
		p.login(w, r)
	case path == "/login.js" && r.Method == http.MethodGet:
		data, err := fs.ReadFile(files, "static/login.js")
		if err != nil {
			http.NotFound(w, r)
			return
		}
		header.Set("Content-Type", "text/javascript; charset=utf-8")
		_, _ = w.Write(data) // The browser may have gone.
	case !strings.HasPrefix(path, Root) || clean(path) != path:
		http.NotFound(w, r)
	case strings.HasPrefix(path, Root+"static/"):
		p.pass(w, r, Access{Grant: GrantRead}) // The login page has the same style.
	default:
		access := p.access(r)
		if access.Grant == "" && r.Method == http.MethodGet && r.Header.Get(partsHeader) == "" && path != Root+"live" {
			http.Redirect(w, r, "/", http.StatusSeeOther)
			return
		}
		if access.Grant == "" {
			http.Error(w, "This session has ended.", http.StatusUnauthorized)
			return
		}
		p.pass(Gate(w, p.Now, func() bool { return p.access(r).Grant != "" }), r, access)
	}
}

func refuseLarge(w http.ResponseWriter) {
	http.Error(w, fmt.Sprintf("What a page sends has %d bytes at most.", maxForm), http.StatusRequestEntityTooLarge)
}

// clean is a path without parts that somebody on the way would resolve, also who takes a backslash for a slash, or
// escapes out of what had them taken out: no page has either in its path.
func clean(path string) string {
	if strings.ContainsAny(path, "\\%\x00") {
		return ""
	}
	cleaned := pathpkg.Clean(path)
	if strings.HasSuffix(path, "/") && cleaned != "/" {
		cleaned += "/"
	}
	return cleaned
}

// refuse says why a request is none of a browser that shows this very console: its host is
// another name that was bound to this address, or another page has sent it.
func (p *Proxy) refuse(r *http.Request) string {
	same := "http://" + r.Host
	if p.Knows != nil {
		same = "https://" + r.Host
		host := r.Host
		if name, _, err := net.SplitHostPort(r.Host); err == nil {
			host = name
		}
		if !p.Knows(host) {
			return fmt.Sprintf("Host %q isn't this console: use the machine's address, or a name that its certificate is for.", r.Host)
		}
	} else if r.Host != "127.0.0.1:"+p.Port && r.Host != "localhost:"+p.Port {
		return fmt.Sprintf("Host %q isn't this console: open http://127.0.0.1:%s/", r.Host, p.Port)
	}
	site, origin := r.Header.Get("Sec-Fetch-Site"), r.Header.Get("Origin")
	switch r.Method {
	case http.MethodGet:
		// A page of another origin may lead here, but have nothing of it in itself.
		if site != "" && site != "same-origin" && site != "none" && r.Header.Get("Sec-Fetch-Mode") != "navigate" || origin != "" && origin != same {
			return "Another page has asked for this."
		}
	case http.MethodPost:
		if origin != "" && origin != same || site != "" && site != "same-origin" || origin == "" && site == "" {
			return "Only the console's own pages may change anything."
		}
	default:
		return "The console has only GET and POST."
	}
	return ""
}

// cookieName is one that browsers take by TLS only, where there is that.
func (p *Proxy) cookieName() string {
	if p.Knows != nil {
		return "__Host-skep_console_" + p.Port
	}
	return "skep_console_" + p.Port
}

// access is what the browser may do; without a grant, nothing.
func (p *Proxy) access(r *http.Request) Access {
	cookie, err := r.Cookie(p.cookieName())
	if err != nil {
		return Access{}
	}
	p.mu.Lock()
	one, ok := p.sessions[sha256.Sum256([]byte(cookie.Value))]
	p.mu.Unlock()
	if !ok || !p.Now().Before(one.ends) || p.Holds != nil && !p.Holds(one.Access) {
		return Access{}
	}
	return one.Access
}

func (p *Proxy) showLogin(w http.ResponseWriter, status int, why string) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_ = loginPage.ExecuteTemplate(w, "login", struct {
		Why     string
		ByToken bool
	}{why, p.Knows != nil}) // The browser may have gone.
}

// mayTry tells whether who asks hasn't shown too many wrong tokens.
func (p *Proxy) mayTry(r *http.Request) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.Knows == nil || p.tries.take(sourceOf(r.RemoteAddr), p.Now())
}

// right notes that the one that was tried wasn't wrong.
func (p *Proxy) right(r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tries.giveBack(sourceOf(r.RemoteAddr))
}

func (p *Proxy) tell(message string, r *http.Request, args ...any) {
	if p.Log != nil {
		p.Log.Info(message, append(args, "from", r.RemoteAddr)...)
	}
}

// login takes a code, and begins a session.
func (p *Proxy) login(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxLogin)
	if err := r.ParseForm(); err != nil {
		p.showLogin(w, http.StatusBadRequest, "That was no code.")
		return
	}
	if !p.mayTry(r) {
		p.showLogin(w, http.StatusTooManyRequests, "Too many wrong ones came from your address: wait a minute.")
		return
	}
	access, err := p.Redeem(r.Context(), strings.TrimSpace(r.PostForm.Get("code")))
	if err != nil || access.Grant != GrantRead && access.Grant != GrantWrite {
		p.tell("a browser isn't let into the console", r)
		why := "The node says nothing of this code."
		if err != nil {
			why = sentence(err.Error())
		}
		p.showLogin(w, http.StatusForbidden, why)
		return
	}
	p.right(r)
	text, err := p.begin(access)
	if err != nil {
		p.showLogin(w, http.StatusServiceUnavailable, sentence(err.Error()))
		return
	}
	http.SetCookie(w, &http.Cookie{
		Name: p.cookieName(), Value: text, Path: "/", MaxAge: int(sessionLife.Seconds()), HttpOnly: true, Secure: p.Knows != nil, SameSite: http.SameSiteStrictMode,
	})
	p.tell("a browser is let into the console", r, "name", access.Who, "grant", access.Grant)
	http.Redirect(w, r, Root, http.StatusSeeOther)
}

// begin makes a session.
func (p *Proxy) begin(access Access) (string, error) {
	text, err := randomText(p.Random)
	if err != nil {
		return "", err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.Now()
	for key, one := range p.sessions {
		if !now.Before(one.ends) {
			delete(p.sessions, key)
		}
	}
	if len(p.sessions) >= maxSessions {
		return "", fmt.Errorf("%d browsers have this console open: start another \"skep console\"", maxSessions)
	}
	if p.sessions == nil {
		p.sessions = map[[sha256.Size]byte]session{}
	}
	p.sessions[sha256.Sum256([]byte(text))] = session{access, now.Add(sessionLife)}
	return text, nil
}

// strip takes from a request what a browser says of itself, and sets what it may do: the node's own sockets refuse
// browsers.
func strip(header http.Header, grant string) {
	for name := range header {
		if strings.HasPrefix(name, "Sec-") {
			header.Del(name)
		}
	}
	for _, name := range []string{"Cookie", "Origin", "Referer", "Authorization"} {
		header.Del(name)
	}
	header.Set(GrantHeader, grant)
}

// pass asks the node.
func (p *Proxy) pass(w http.ResponseWriter, r *http.Request, access Access) {
	if p.Here != nil {
		ask := r.Clone(r.Context())
		strip(ask.Header, access.Grant)
		p.Here(w, ask, access)
		return
	}
	proxy := &httputil.ReverseProxy{
		Transport:     p.Transport,
		FlushInterval: -1,
		Rewrite: func(out *httputil.ProxyRequest) {
			out.SetURL(p.To)
			strip(out.Out.Header, access.Grant)
		},
		ModifyResponse: func(answer *http.Response) error {
			for name := range answer.Header { // Ours stand already.
				if w.Header().Get(name) != "" && name != "Cache-Control" {
					answer.Header.Del(name)
				}
			}
			if answer.Header.Get("Cache-Control") != "" {
				w.Header().Del("Cache-Control")
			}
			answer.Header.Del("Set-Cookie")
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
				refuseLarge(w)
				return
			}
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			w.WriteHeader(http.StatusBadGateway)
			_ = loginPage.ExecuteTemplate(w, "gone", nil) // The browser may have gone.
		},
	}
	proxy.ServeHTTP(w, r)
}
