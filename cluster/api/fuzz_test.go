package api

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// FuzzServiceBody: whatever is sent, the answer is a status with the right body;
// what is refused changes nothing; what is accepted can be shown and listed.
func FuzzServiceBody(f *testing.F) {
	good, err := json.Marshal(spec("web"))
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{
		string(good), `{}`, `null`, `[]`, `{"TaskTemplate":{"ContainerSpec":{"Image":"a","Mounts":[{}],"Ulimits":[null],"Healthcheck":{"Interval":-1}}}}`,
		`{"Mode":{"Replicated":{"Replicas":18446744073709551615}},"TaskTemplate":{"ContainerSpec":{"Image":"a"}}}`, `{"Name":"a\u0000b"}`,
		`{"UpdateConfig":{"MaxFailureRatio":1e38},"TaskTemplate":{"ContainerSpec":{"Image":"a"}}}`, `{"Labels":null,"TaskTemplate":{"ContainerSpec":{"Image":"a"},"RestartPolicy":{}}}`,
		strings.Repeat(`{"TaskTemplate":`, 50) + `1` + strings.Repeat(`}`, 50),
	} {
		f.Add([]byte(seed))
	}
	b := newBench(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		before := b.view().Index()
		made := ask(t, b.handler, "POST", "/services/create", string(body))
		switch {
		case made.status == 201:
			var answer struct{ ID string }
			made.into(t, &answer)
			ask(t, b.handler, "GET", "/services/"+answer.ID+"?insertDefaults=true", nil).want(t, 200, answer.ID)
			ask(t, b.handler, "GET", "/services?status=true", nil).want(t, 200, answer.ID)
			ask(t, b.handler, "DELETE", "/services/"+answer.ID, nil).want(t, 200, "")
		case made.status >= 500 && made.status != 501:
			t.Fatalf("%d %s", made.status, made.body)
		default:
			made.want(t, made.status, "message")
			if b.view().Index() != before {
				t.Fatalf("refused, but something changed: %s", made.body)
			}
		}
	})
}

// FuzzQuery tries filters and other parameters on every route that only reads.
func FuzzQuery(f *testing.F) {
	b := newBench(f)
	id := b.create(spec("web"))
	b.addTask(1, id, 1, 1)
	for _, seed := range []string{
		`{"name":{"web":true}}`, `{"name":["web"]}`, `{}`, `null`, `{"label":["a=b=c","="]}`, `{"desired-state":[""]}`, `{"service":[""]}`, `{"name":null}`,
		`{"_up-to-date":{}}`, `{"id":{"":false}}`, `[[]]`, `{"role":["MANAGER"]}`,
	} {
		f.Add(seed, "1", "web")
	}
	f.Fuzz(func(t *testing.T, filters, value, ref string) {
		query := url.Values{"filters": {filters}, "status": {value}, "since": {value}, "until": {"1"}, "tail": {value}, "stdout": {value}, "insertDefaults": {value}}
		for _, route := range b.server.routes {
			if route.method != http.MethodGet {
				continue
			}
			path := strings.NewReplacer("{id}", url.PathEscape(ref), "{name...}", url.PathEscape(ref)).Replace(route.pattern)
			w := httptest.NewRecorder()
			request, err := http.NewRequest("GET", "http://a"+path+"?"+query.Encode(), nil)
			if err != nil {
				t.Skip()
			}
			b.handler.ServeHTTP(w, request)
			if w.Code == 500 {
				t.Fatalf("%s: %s", request.URL, w.Body)
			}
			if got := w.Body.String(); w.Code == 200 && strings.HasPrefix(got, "null") {
				t.Fatalf("%s: %s", request.URL, got)
			}
		}
	})
}
