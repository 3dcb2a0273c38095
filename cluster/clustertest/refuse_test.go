package clustertest

import (
	"fmt"
	"testing"
	"time"
)

// A follower that alone is refused by the leader, as by a firewall's rule, deposes nobody:
// the others hear the leader and reach it.
func TestRefuse_WhoAloneIsRefusedDeposesNobody(t *testing.T) {
	for _, managers := range []int{3, 5} {
		t.Run(fmt.Sprint(managers, " managers"), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c := Start(t, managers, 0, Options{})
				leader := c.Leader()
				term := leader.manager().Health().Term
				for _, m := range c.Machines {
					if m == leader {
						continue
					}
					c.wire.refuse(leader.IP, m.IP, true)
					time.Sleep(3 * time.Second)
					if now := leader.manager().Health(); !now.Leader || now.Term != term {
						t.Fatalf("%s leads: %v, in term %d after %d, since it refuses %s", leader.Name, now.Leader, now.Term, term, m.Name)
					}
					c.writes(time.Second, leader, "web-"+m.Name)
					c.wire.refuse(leader.IP, m.IP, false)
					time.Sleep(3 * time.Second)
				}
				c.Same()
			})
		})
	}
}
