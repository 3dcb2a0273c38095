package api

import (
	"net"
	"net/http"
	"net/netip"
	"strings"

	"skep/cluster"
)

// Loopback is Local for sockets that web pages can reach, which tcp:// ones are though they
// are for this machine only: a browser runs here, too, and sends what any page tells it to.
func (s *Server) Loopback() http.Handler {
	local := s.Local()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := refuseBrowser(r); err != nil {
			s.writeError(w, r, err)
			return
		}
		local.ServeHTTP(w, r)
	})
}

// refuseBrowser refuses what a web page can send and no client of ours does: a host name that
// isn't localhost, as the page's own that has been bound to this machine's address (DNS
// rebinding); an Origin, which goes with all that changes anything, and with websockets; and
// the note of newer browsers that a page asked, which goes with images and the like.
func refuseBrowser(r *http.Request) error {
	const advice = "requests of web pages are refused; ask by http://127.0.0.1 or the unix socket, and not from a browser"
	if !loopbackName(r.Host) {
		return fail(cluster.ErrDenied, "Host %q is neither an address nor localhost: %s", r.Host, advice)
	}
	if origin, ok := r.Header["Origin"]; ok {
		return fail(cluster.ErrDenied, "Origin %q: %s", origin, advice)
	}
	for _, site := range r.Header["Sec-Fetch-Site"] {
		if site != "none" {
			return fail(cluster.ErrDenied, "Sec-Fetch-Site %q: %s", site, advice)
		}
	}
	return nil
}

// loopbackName tells whether a Host is one that no name server has a say in.
func loopbackName(host string) bool {
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	}
	if strings.EqualFold(name, "localhost") {
		return true
	}
	_, err = netip.ParseAddr(name)
	return err == nil
}
