// Package network decides what the kernel of a node should have so that the cluster's
// networks work on it: bridges with a VXLAN port each, static forwarding entries and
// neighbours, virtual IPs, published ports.
//
// The agent runs it: Desired turns what the managers told the node into kernel objects,
// Plan compares them with those that there are, and a Plane carries out the steps.
// agent/network/linux is the Plane that speaks to the kernel.
//
// Guarantees: Desired and Plan are pure. What is right already is left alone, so nothing
// flows through an object that is removed and made anew. Nothing is removed until the
// managers' account is complete. Any account has objects: what makes no sense in it is left
// out, and keeps nothing else from working. Only objects that skep made are ever named in a step.
package network
