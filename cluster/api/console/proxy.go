package console

import (
	"context"
	"crypto/sha256"
	"fmt"
	"html/template"
	"io"
	"io/fs"
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
)

// Proxy lets a browser of this machine reach a node's console, and nothing else of the node.
// Everybody on the machine, and every page that the browser shows, can reach the proxy's
// port, so it lets in only who has shown a code.
type Proxy struct {
	// Port is the one that it is reached at, on the loopback address.
	Port string
	// Redeem asks the node what a code is for.
	Redeem func(ctx context.Context, code string) (grant string, err error)
	// To is the node: scheme and host for requests by Transport.
	To        *url.URL
	Transport http.RoundTripper
	Now       func() time.Time
	Random    io.Reader

	mu       sync.Mutex // guards sessions
	sessions map[[sha256.Size]byte]code
}

var loginPage = template.Must(template.ParseFS(files, "templates/login.html"))

// ServeHTTP checks who asks, and passes on what is the console's.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Content-Security-Policy", contentPolicy)
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Referrer-Policy", "same-origin")
	header.Set("Cache-Control", "no-store")
	if why := p.refuse(r); why != "" {
		http.Error(w, why, http.StatusForbidden)
		return
	}
	path := r.URL.Path
	switch {
	case path == "/" && r.Method == http.MethodGet:
		if p.grant(r) != "" && r.URL.RawQuery == "" && r.Header.Get("Sec-Fetch-Site") == "same-origin" {
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
		p.pass(w, r, GrantRead) // The login page has the same style.
	default:
		grant := p.grant(r)
		if grant == "" && r.Method == http.MethodGet && r.Header.Get(partsHeader) == "" && path != Root+"live" {
			http.Redirect(w, r, "/", http.StatusSeeOther)
			return
		}
		if grant == "" {
			http.Error(w, "This session has ended.", http.StatusUnauthorized)
			return
		}
		p.pass(w, r, grant)
	}
}

// clean is a path without parts that somebody on the way would resolve.
func clean(path string) string {
	cleaned := pathpkg.Clean(path)
	if strings.HasSuffix(path, "/") && cleaned != "/" {
		cleaned += "/"
	}
	return cleaned
}

// refuse says why a request is none of a browser that shows this very console: its host is
// another name that was bound to this address, or another page has sent it.
func (p *Proxy) refuse(r *http.Request) string {
	if r.Host != "127.0.0.1:"+p.Port && r.Host != "localhost:"+p.Port {
		return fmt.Sprintf("Host %q isn't this console: open http://127.0.0.1:%s/", r.Host, p.Port)
	}
	site, origin := r.Header.Get("Sec-Fetch-Site"), r.Header.Get("Origin")
	same := "http://" + r.Host
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

func (p *Proxy) cookieName() string { return "skep_console_" + p.Port }

// grant is what the browser may do; empty for nothing.
func (p *Proxy) grant(r *http.Request) string {
	cookie, err := r.Cookie(p.cookieName())
	if err != nil {
		return ""
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	one, ok := p.sessions[sha256.Sum256([]byte(cookie.Value))]
	if !ok || !p.Now().Before(one.ends) {
		return ""
	}
	return one.grant
}

func (p *Proxy) showLogin(w http.ResponseWriter, status int, why string) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_ = loginPage.ExecuteTemplate(w, "login", why) // The browser may have gone.
}

// login takes a code, and begins a session.
func (p *Proxy) login(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxLogin)
	if err := r.ParseForm(); err != nil {
		p.showLogin(w, http.StatusBadRequest, "That was no code.")
		return
	}
	grant, err := p.Redeem(r.Context(), strings.TrimSpace(r.PostForm.Get("code")))
	if err != nil || grant != GrantRead && grant != GrantWrite {
		why := "The node says nothing of this code."
		if err != nil {
			why = sentence(err.Error())
		}
		p.showLogin(w, http.StatusForbidden, why)
		return
	}
	text, err := p.begin(grant)
	if err != nil {
		p.showLogin(w, http.StatusServiceUnavailable, sentence(err.Error()))
		return
	}
	http.SetCookie(w, &http.Cookie{
		Name: p.cookieName(), Value: text, Path: "/", MaxAge: int(sessionLife.Seconds()), HttpOnly: true, SameSite: http.SameSiteStrictMode,
	})
	http.Redirect(w, r, Root, http.StatusSeeOther)
}

// begin makes a session.
func (p *Proxy) begin(grant string) (string, error) {
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
		p.sessions = map[[sha256.Size]byte]code{}
	}
	p.sessions[sha256.Sum256([]byte(text))] = code{grant, now.Add(sessionLife)}
	return text, nil
}

// pass asks the node. What a browser says of itself stays here: the node's own sockets refuse
// browsers.
func (p *Proxy) pass(w http.ResponseWriter, r *http.Request, grant string) {
	proxy := &httputil.ReverseProxy{
		Transport:     p.Transport,
		FlushInterval: -1,
		Rewrite: func(out *httputil.ProxyRequest) {
			out.SetURL(p.To)
			for name := range out.Out.Header {
				if strings.HasPrefix(name, "Sec-") {
					out.Out.Header.Del(name)
				}
			}
			for _, name := range []string{"Cookie", "Origin", "Referer", "Authorization"} {
				out.Out.Header.Del(name)
			}
			out.Out.Header.Set(GrantHeader, grant)
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
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) {
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			w.WriteHeader(http.StatusBadGateway)
			_ = loginPage.ExecuteTemplate(w, "gone", nil) // The browser may have gone.
		},
	}
	proxy.ServeHTTP(w, r)
}
