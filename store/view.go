package store

// View is the database at one moment. It never changes, costs nothing to keep
// for a while, and may be read by many goroutines at once. What it returns is
// shared: copy an object before changing it. Lookups return nil for what isn't
// there. The zero View must not be used. Each kind of object has its lookups in a file
// of its own.
type View struct{ s *state }

// Index is the log index of the last entry in the view.
func (v View) Index() uint64 { return v.s.applied }
