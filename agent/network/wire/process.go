package wire

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/ipc"
	"golang.zx2c4.com/wireguard/tun"

	"skep/agent/network/helper"
)

const (
	// lookEvery is how often the file is looked at.
	lookEvery = 20 * time.Millisecond
	// firstMTU is a device's until it is told another.
	firstMTU = 1420
)

// Config is what Process needs.
type Config struct {
	// File has a line for each device. The process ends when it is gone.
	File string
	// Build tells this program from other versions of it.
	Build string
	Log   *slog.Logger
}

// wire is a device of this process.
type wire struct {
	device  *device.Device
	sockets net.Listener
}

func (w *wire) close() {
	w.device.Close()
	_ = w.sockets.Close()
}

// Process has the devices that the file lists until ctx ends or the file is gone. A process that has
// them already is ended: the daemon gives this one's devices their keys and peers again.
func Process(ctx context.Context, cfg Config) error {
	lock, err := helper.Lock(ctx, cfg.File+".lock")
	if err != nil {
		return fmt.Errorf("have WireGuard devices: %w", err)
	}
	defer lock.Close()
	if before, err := helper.Knock(cfg.File); err == nil {
		err := helper.KillPeer(before)
		_ = before.Close()
		if err != nil {
			return fmt.Errorf("end the process before: %w", err)
		}
	}
	door, err := helper.OpenDoor(cfg.File)
	if err != nil {
		return fmt.Errorf("have WireGuard devices: %w", err)
	}
	_ = lock.Close()
	defer door.Close()
	go helper.Answer(door, cfg.Build)
	cfg.Log.Info("have WireGuard devices", "file", cfg.File, "build", cfg.Build)
	wires, failed := map[string]*wire{}, map[string]string{}
	defer func() {
		for _, w := range wires {
			w.close()
		}
	}()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		data, err := os.ReadFile(cfg.File)
		if errors.Is(err, fs.ErrNotExist) {
			cfg.Log.Info("no more WireGuard devices", "cause", "the file is gone")
			return nil
		}
		if err == nil {
			look(cfg.Log, strings.Fields(string(data)), wires, failed)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// look makes the devices that are missing, and closes those that aren't wanted.
func look(log *slog.Logger, names []string, wires map[string]*wire, failed map[string]string) {
	for name, w := range wires {
		ended := false
		select {
		case <-w.device.Wait(): // Somebody has removed it.
			ended = true
		default:
		}
		if ended || !slices.Contains(names, name) {
			w.close()
			delete(wires, name)
		}
	}
	for _, name := range names {
		if wires[name] != nil {
			continue
		}
		w, err := open(log, name)
		if err != nil {
			if reason := err.Error(); failed[name] != reason {
				failed[name] = reason
				log.Warn("make a WireGuard device; trying again", "device", name, "err", err)
			}
			continue
		}
		delete(failed, name)
		wires[name] = w
	}
}

// open makes a device without a key.
func open(log *slog.Logger, name string) (*wire, error) {
	link, err := tun.CreateTUN(name, firstMTU)
	if err != nil {
		return nil, err
	}
	// What it would say of packets has addresses in it, and isn't asked for.
	d := device.NewDevice(link, conn.NewDefaultBind(), &device.Logger{Verbosef: device.DiscardLogf, Errorf: func(format string, args ...any) {
		log.Debug("of a WireGuard device", "device", name, "said", fmt.Sprintf(format, args...))
	}})
	file, err := ipc.UAPIOpen(name)
	if err != nil {
		d.Close()
		return nil, err
	}
	sockets, err := ipc.UAPIListen(name, file)
	_ = file.Close()
	if err != nil {
		d.Close()
		return nil, err
	}
	go func() {
		for {
			conn, err := sockets.Accept()
			if err != nil {
				return
			}
			go d.IpcHandle(conn)
		}
	}()
	return &wire{d, sockets}, nil
}
