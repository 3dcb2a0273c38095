package console

import (
	"errors"
	"net/http"
	"time"
)

// gateEvery is how often it is asked whether a stream may go on.
const gateEvery = time.Second

var errGateClosed = errors.New("what lets this stream be read has ended")

// Gate is w for as long as open says so, which is asked at what is written, once a second at most: a stream lasts
// longer than what let it begin.
func Gate(w http.ResponseWriter, now func() time.Time, open func() bool) http.ResponseWriter {
	return &gate{ResponseWriter: w, now: now, open: open, asked: now()}
}

type gate struct {
	http.ResponseWriter
	now   func() time.Time
	open  func() bool
	asked time.Time
	shut  bool
}

// Write implements http.ResponseWriter.
func (g *gate) Write(data []byte) (int, error) {
	if now := g.now(); !g.shut && now.Sub(g.asked).Abs() >= gateEvery {
		g.asked, g.shut = now, !g.open()
	}
	if g.shut {
		return 0, errGateClosed
	}
	return g.ResponseWriter.Write(data)
}

// Unwrap lets http.ResponseController through.
func (g *gate) Unwrap() http.ResponseWriter { return g.ResponseWriter }
