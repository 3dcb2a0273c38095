package cluster

import "time"

// AuditToLog in the place of a file's name has the audit log in the daemon's log.
const AuditToLog = "-"

// Audited is one request that changed something, or wanted to, or that showed something secret, or ran a command
// in a task's container. The manager that was asked keeps it. There is never what is in an object in it.
type Audited struct {
	Time time.Time
	// Manager is the name of the one that was asked, and Seq the number that it gave.
	Manager string
	Seq     uint64
	// By is who asked, as in the log: "uid 0 on n1". User, UID and PID are the process's that asked by a unix
	// socket, by the kernel's word; the name is what the machine's /etc/passwd has for the UID.
	By   string
	User string  `json:",omitempty"`
	UID  *uint32 `json:",omitempty"`
	PID  int32   `json:",omitempty"`
	// Route is what was asked for, such as "POST /services/{id}/update", and Ref what stood for {id}.
	Route string
	Ref   string `json:",omitempty"`
	// Objects are what was changed.
	Objects []AuditedObject `json:",omitempty"`
	Result  AuditResult
	Status  int
}

// AuditedObject is an object that was changed: From is its version before, 0 for a new one, and To the one since,
// 0 for one that was removed.
type AuditedObject struct {
	Kind, ID string
	Name     string `json:",omitempty"`
	From     uint64 `json:",omitempty"`
	To       uint64 `json:",omitempty"`
}

// AuditResult is what came of a request.
type AuditResult string

// What may come of a request. It is unknown when the leader was lost before it said.
const (
	AuditDone    AuditResult = "done"
	AuditRefused AuditResult = "refused"
	AuditFailed  AuditResult = "failed"
	AuditUnknown AuditResult = "unknown"
)

// AuditLog is what managers tell of requests, in the order of their times.
type AuditLog struct {
	Records []Audited
	// Missing are the names of managers that didn't answer.
	Missing []string `json:",omitempty"`
}
