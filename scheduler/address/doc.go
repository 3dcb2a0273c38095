// Package address chooses what networks hand out: subnets from the cluster's pools, addresses
// in a subnet, VXLAN identifiers and published ports.
//
// The API's transactions and the scheduler's plans call it, with what is in use as the database
// has it. It keeps nothing: what is chosen is in use once it is written.
//
// Guarantees: what is in use is never chosen. What was freed is unlikely to be chosen again
// soon, since the choice begins where the digest of an ID says: names and connections that
// still know the old owner don't meet the new one. The same question has the same answer, on any
// manager.
package address
