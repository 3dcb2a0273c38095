package cluster

// ConsoleRequest asks a node for a code by which a browser gets into its console:
// POST /skep/v1/console/session. The answer is a ConsoleCode.
type ConsoleRequest struct {
	// Write is set for a session that may change something.
	Write bool
}

// ConsoleCode is that code. A browser has shown it: POST /skep/v1/console/redeem, once. The
// answer is a ConsoleGrant.
type ConsoleCode struct{ Code string }

// ConsoleGrant is what the code was for: "read" or "write".
type ConsoleGrant struct{ Grant string }

// ConsoleUse is what the cluster allows pages of the console to do: see LabelConsole.
type ConsoleUse uint8

// Show the cluster, which is the default; nothing, since there are no pages; or change it, too.
const (
	ConsoleRead ConsoleUse = iota
	ConsoleOff
	ConsoleWrite
)
