package api

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
)

const (
	// stateLasts is for how long a reading of the database is served again: there may be
	// several who scrape.
	stateLasts = 5 * time.Second
	// scrapeLimit is how long a scrape may take. It waits for nobody, least of all for the leader.
	scrapeLimit = 5 * time.Second
	// scrapeConnections is how many connections a port of their own for metrics has.
	scrapeConnections = 16
)

// showMetrics serves GET /metrics.
func (s *Server) showMetrics(_ context.Context, r *request) (response, error) {
	return response{stream: func(_ context.Context, w http.ResponseWriter) { s.scrape.ServeHTTP(w, r.http) }}, nil
}

// newScrape is what serves the node's instruments and the state of its cluster.
func (s *Server) newScrape() http.Handler {
	if s.Metrics == nil {
		return http.NotFoundHandler()
	}
	reader := &stateReader{server: s, started: s.Now()}
	s.Metrics.OnScrape(reader.read)
	return s.scrapeOf(s.Metrics)
}

// scrapeOf serves what is gathered, one scrape at a time, whoever asks and wherever: two who watch the same node ask at the same
// moment again and again, so the second one waits, and isn't refused.
func (s *Server) scrapeOf(gather prometheus.Gatherer) http.Handler {
	serve := promhttp.HandlerFor(gather, promhttp.HandlerOpts{})
	inTurn := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case s.scraping <- struct{}{}:
			defer func() { <-s.scraping }()
			serve.ServeHTTP(w, r)
		case <-r.Context().Done():
		}
	})
	return http.TimeoutHandler(inTurn, scrapeLimit, fmt.Sprintf("the scrape took more than %s", scrapeLimit))
}

// Scrape is for a port of its own: GET /metrics and nothing else, for those who show the token, if that isn't
// empty, which is asked for at each scrape; without what names services, unless it has them.
func (s *Server) Scrape(token func() (string, error), services bool) http.Handler {
	if s.Metrics == nil {
		return http.NotFoundHandler()
	}
	scrape := s.scrapeOf(s.Metrics)
	if !services {
		scrape = s.scrapeOf(withoutServices(s.Metrics))
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		now, err := token()
		want, given := sha256.Sum256([]byte("Bearer "+now)), sha256.Sum256([]byte(r.Header.Get("Authorization")))
		switch {
		case err != nil:
			s.Log.Warn("read the token for metrics: nobody gets any", "err", err)
			http.Error(w, "the token can't be read", http.StatusServiceUnavailable)
		case now != "" && subtle.ConstantTimeCompare(given[:], want[:]) != 1:
			w.Header().Set("WWW-Authenticate", "Bearer")
			http.Error(w, "the token is needed", http.StatusUnauthorized)
		case r.URL.Path != "/metrics":
			http.NotFound(w, r)
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			http.Error(w, "only GET is served here", http.StatusMethodNotAllowed)
		default:
			scrape.ServeHTTP(newTracked(w, s.patience), r)
		}
	})
}

// withoutServices leaves out the series that name services.
func withoutServices(all prometheus.Gatherer) prometheus.GathererFunc {
	return func() (kept []*dto.MetricFamily, err error) {
		families, err := all.Gather()
		for _, f := range families {
			named := func(m *dto.Metric) bool {
				return slices.ContainsFunc(m.Label, func(l *dto.LabelPair) bool { return l.GetName() == "service" })
			}
			if !slices.ContainsFunc(f.Metric, named) {
				kept = append(kept, f)
			} else if rest := slices.DeleteFunc(slices.Clone(f.Metric), named); len(rest) > 0 {
				kept = append(kept, &dto.MetricFamily{Name: f.Name, Help: f.Help, Type: f.Type, Unit: f.Unit, Metric: rest})
			}
		}
		return kept, err
	}
}

// ServeScrapes is Serve for a port with Scrape: it has few connections.
func ServeScrapes(ctx context.Context, listener net.Listener, handler http.Handler) error {
	return serve(ctx, listener, handler, scrapeLimit, scrapeConnections)
}

// count counts a request that was answered.
func (s *Server) count(w http.ResponseWriter, c call, began time.Time) {
	t, ok := w.(*tracked)
	if !ok || s.Metrics == nil {
		return
	}
	route, method := "engine", "other"
	if c.route != nil {
		route = c.route.pattern
	}
	if slices.Contains([]string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodDelete}, c.http.Method) {
		method = c.http.Method
	}
	s.Metrics.API.Requests.Add(1, route, method, string('0'+rune(max(t.status, http.StatusOK)/100))+"xx")
	if c.route != nil && t.limit == t.patience.answer {
		s.Metrics.API.Took.Of(route).Took(s.Now().Sub(began))
	}
}
