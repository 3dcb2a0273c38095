package cluster

import (
	"errors"
	"testing"
)

func TestTimingFor(t *testing.T) {
	lan, err := TimingFor("")
	if named, _ := TimingFor(LatencyLAN); err != nil || lan != named {
		t.Errorf("no name is %+v, %v; want the LAN's", lan, err)
	}
	if _, err := TimingFor("moon"); !errors.Is(err, ErrInvalid) {
		t.Errorf("an unknown name: %v; want ErrInvalid", err)
	}
	local, _ := TimingFor(LatencyLocal)
	wan, _ := TimingFor(LatencyWAN)
	last := Timing{}
	for _, timing := range []Timing{local, lan, wan} {
		if timing.HeartbeatTimeout <= last.HeartbeatTimeout || timing.ProbeInterval <= last.ProbeInterval || timing.ProbeTimeout >= timing.ProbeInterval {
			t.Errorf("%+v after %+v: want more patience from local to wan, and an answer due before the next probe", timing, last)
		}
		last = timing
	}
}
