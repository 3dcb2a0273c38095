package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime"
	"runtime/pprof"
	"sync"
	"syscall"
	"time"
)

// profiles serves what the daemon does with its processor and memory, for experiments: `lab scale` asks. It is a
// socket of its own, which only the daemon's user may open, and is there only where the command line names it.
//
//	POST /cpu/start   begins a profile; 409 when one is under way
//	POST /cpu/stop    ends it, and answers with it
//	GET  /heap        collects garbage, and answers with what is in memory: a profile
//	GET  /memory      the same as text, with the statistics of the runtime
//
// Profiles have names of functions and numbers, and none of their values.
type profiles struct {
	mu  sync.Mutex // guards cpu
	cpu *bytes.Buffer
}

// maxProfile is how long a profile goes on that nobody stops.
const maxProfile = time.Hour

// serveProfiles serves them at a path until ctx ends.
func serveProfiles(ctx context.Context, path string, log *slog.Logger) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("serve profiles: %w", err)
	}
	mask := syscall.Umask(0o177)
	listener, err := net.Listen("unix", path)
	syscall.Umask(mask)
	if err != nil {
		return fmt.Errorf("serve profiles: %w", err)
	}
	log.Warn("this daemon tells what its processor does: --profile-socket is for experiments only", "path", path)
	server := &http.Server{Handler: new(profiles).handler(), ReadHeaderTimeout: 10 * time.Second, MaxHeaderBytes: 16 << 10}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	go func() { _ = server.Serve(listener) }()
	return nil
}

func (p *profiles) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /cpu/start", func(w http.ResponseWriter, _ *http.Request) {
		if err := p.start(); err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
		}
	})
	mux.HandleFunc("POST /cpu/stop", func(w http.ResponseWriter, _ *http.Request) {
		data := p.stop()
		if data == nil {
			http.Error(w, "stop profile: none is under way", http.StatusConflict)
			return
		}
		_, _ = w.Write(data)
	})
	for path, form := range map[string]int{"GET /heap": 0, "GET /memory": 1} {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			runtime.GC()
			_ = pprof.Lookup("heap").WriteTo(w, form)
		})
	}
	return mux
}

func (p *profiles) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cpu != nil {
		return errors.New("start profile: one is under way")
	}
	into := new(bytes.Buffer)
	if err := pprof.StartCPUProfile(into); err != nil {
		return err
	}
	p.cpu = into
	time.AfterFunc(maxProfile, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.cpu == into {
			pprof.StopCPUProfile()
			p.cpu = nil
		}
	})
	return nil
}

// stop is nil when no profile is under way.
func (p *profiles) stop() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cpu == nil {
		return nil
	}
	pprof.StopCPUProfile()
	data := p.cpu.Bytes()
	p.cpu = nil
	return data
}
