package linux

import "skep/agent/network"

// SetFault puts fault between the plane and the kernel; nil takes it away.
func (p *Plane) SetFault(fault func(steps []network.Step, do func() error) error) { p.fault = fault }

// Forgets tells whether connections are looked for after steps.
func Forgets(steps ...network.Step) bool { return flowsOf(steps, false) != nil }
