package main

import (
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// process is a program that the lab runs beside itself, with a log.
type process struct {
	name    string
	logFile string
	// in is the namespace that it runs in; nil for the machine's own.
	in *namespace

	cmd   *exec.Cmd
	ended chan struct{} // closed when the process has ended; its error is in exit
	exit  error
}

// waitedFor has the IDs of the processes that run waits for: their ends are its to take.
var waitedFor sync.Map

// run starts the program. It may be run again once it has ended.
func (p *process) run(program string, args ...string) error {
	log, err := os.OpenFile(p.logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	p.cmd = exec.Command(program, args...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	// Its own process group, so that Ctrl-C reaches the lab only, which then stops
	// what it runs in order; and nothing outlives the lab, however the lab ends.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	start := p.cmd.Start
	if p.in != nil && p.in.led {
		p.cmd.SysProcAttr.Pdeathsig = 0
	}
	if p.in != nil {
		start = func() error { return p.in.do(p.cmd.Start) }
	}
	if err := start(); err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	ended, pid := make(chan struct{}), p.cmd.Process.Pid
	p.ended = ended
	waitedFor.Store(pid, true)
	go func() {
		p.exit = p.cmd.Wait()
		waitedFor.Delete(pid)
		close(ended)
	}()
	return nil
}

// running tells whether the process is there.
func (p *process) running() bool {
	if p.cmd == nil || p.cmd.Process == nil {
		return false
	}
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// alive is an error when the process has ended: whoever waits for it waits in vain.
func (p *process) alive() error {
	if p.running() {
		return nil
	}
	return fmt.Errorf("%s ended: %v\n%s", p.name, p.exit, p.lastLog())
}

// kill ends the process as a power failure would, and returns when it is gone.
func (p *process) kill() {
	if p.running() {
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
}

// stop asks for an orderly stop and waits for it.
func (p *process) stop() error {
	if !p.running() {
		return nil
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
		if p.exit != nil {
			return fmt.Errorf("stop %s: %w\n%s", p.name, p.exit, p.lastLog())
		}
		return nil
	case <-time.After(time.Minute):
		p.kill()
		return fmt.Errorf("stop %s: still running a minute after SIGTERM\n%s", p.name, p.lastLog())
	}
}

// lastLog is the end of the log, for error messages.
func (p *process) lastLog() string {
	const most = 2 << 10
	text, err := os.ReadFile(p.logFile)
	if err != nil {
		return ""
	}
	if len(text) > most {
		text = text[len(text)-most:]
	}
	return string(text)
}
