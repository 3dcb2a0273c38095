package cluster

import (
	"errors"
	"testing"

	"github.com/docker/docker/api/types/swarm"
)

// What is made for one network changes no other's: specs share their maps with those who made them.
func TestEncryptNew_LeavesTheUsersOptions(t *testing.T) {
	all := swarm.Spec{Annotations: swarm.Annotations{Labels: map[string]string{LabelEncryptNetworks.Name: "true"}}}
	given := map[string]string{"com.docker.network.driver.mtu": "1400"}
	n := &Network{Spec: swarm.NetworkSpec{DriverConfiguration: &swarm.Driver{Name: OverlayDriver, Options: given}}}
	if err := n.EncryptNew(swarm.Spec{}); err != nil || n.Encrypted() {
		t.Errorf("without the setting: %v, %v", n.Spec.DriverConfiguration, err)
	}
	if err := n.EncryptNew(all); err != nil || !n.Encrypted() || n.Spec.DriverConfiguration.Options["com.docker.network.driver.mtu"] != "1400" || len(given) != 1 {
		t.Errorf("%v, %v; given were %v", n.Spec.DriverConfiguration, err, given)
	}
	n = &Network{Spec: swarm.NetworkSpec{DriverConfiguration: &swarm.Driver{Name: OverlayDriver, Options: map[string]string{OptionEncrypted: "false"}}}}
	if err := n.EncryptNew(all); !errors.Is(err, ErrInvalid) || n.Encrypted() {
		t.Errorf("one that is to be in clear: %v", err)
	}
	n = &Network{Spec: swarm.NetworkSpec{DriverConfiguration: &swarm.Driver{Name: "macvlan"}}}
	if err := n.EncryptNew(all); err != nil || n.Encrypted() {
		t.Errorf("one of each engine: %v", err)
	}
}
