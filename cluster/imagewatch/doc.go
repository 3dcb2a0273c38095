// Package imagewatch looks after the images of services that ask for it (label
// skep.image.watch): it asks registries which digest a service's tag names, and has the service
// updated when the tag moved.
//
// Who runs it: the leader, as long as it leads; Run is the one goroutine that decides, beside
// which at most four ask. What it was told is in memory, and asked again by the next leader; what a
// service was taken back from is in the service (LeftImages).
//
// Guarantees: a service isn't updated twice to one digest of its tag unless it ran what
// the tag names in between, or somebody said so; nothing is written while nothing changes; a leader
// asks at most one question a second, at the same times as the one before.
package imagewatch
