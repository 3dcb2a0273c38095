// Package ca is the cluster's certificate authority and the identity that each
// node proves with it: root, certificates, key file, and the TLS configurations
// of every connection between nodes.
//
// Who runs it: nobody; it starts no goroutine. The leader holds a Root with its
// key and issues; every node holds Credentials and asks them for tls.Configs; a
// node that joins uses JoinTLS once; the node's main loop renews at RenewAt.
//
// # Guarantees
//
//   - A certificate says what the store says: CN is the node's ID, OU its role
//     (swarm-worker or swarm-manager, as in Swarm), O the cluster's ID. Of a
//     certificate request only the public key is used, after its signature has
//     been checked; names, addresses and extensions in it are ignored.
//   - Connections are TLS 1.3 and nothing older, and trust the cluster's root and
//     nothing else: never the system's roots, never a host name or an address.
//     A peer whose certificate has another O is refused, even under the same root.
//   - There are no session tickets, so each connection checks the certificate as it
//     is then, and a new certificate (Credentials.Replace) is used by the next
//     handshake.
//   - A joining node trusts exactly the root whose digest is in its join token,
//     and sends nothing before it has checked it.
//   - Keys never appear in errors or logs.
//
// A certificate is checked when a connection is opened, not later: whoever
// revokes a node must also end its connections and refuse its ID, which is the
// store's to know.
//
// # Formats
//
// The root is ECDSA P-256, self-signed, CN swarm-ca, for 20 years. A node's
// certificate is ECDSA P-256, by default for 90 days and backdated an hour so
// that a slow clock doesn't refuse it; its chain carries the root, for joiners.
// Its DNS names are the node's ID, its role's OU and "skep": a client that knows
// whom it wants asks for that ID, one that wants any manager for swarm-manager.
// The digest in join tokens is the SHA-256 of the root's DER in 50 characters of
// base 36 (Swarm hashes the PEM; nobody but the cluster itself compares it).
// The key file is described at KeyFile.
//
// Times and randomness are passed in. Go 1.26 takes randomness for keys and ECDSA
// signatures from the operating system whatever it is given, so with a seeded
// source only serial numbers and renewal times repeat.
//
// While one root takes the place of another (see cluster.RootRotation), nodes trust
// both, and show the new one as certified by the old along with certificates by it.
//
// Not here: a second CA outside.
package ca
