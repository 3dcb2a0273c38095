package api

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/store"
)

const (
	// keptAudits are how many requests a manager tells of.
	keptAudits = 1000
	// auditObjects are how many objects of one request are told.
	auditObjects = 16
	// auditQueue is how many lines may wait for the disk, and auditFileMost how large the file gets.
	auditQueue    = 1024
	auditFileMost = 64 << 20
	// auditLimit is how long another manager may take to tell its part, and auditAnswer how much that may be.
	auditLimit  = time.Second
	auditAnswer = 4 << 20
	// auditHeader is how the leader tells the manager that was asked what was changed.
	auditHeader = "Skep-Changed"
	// auditUnknown in the place of that says that nobody knows.
	auditUnknown = "unknown"

	pathOwnAudit = "/skep/v1/audit/own"
)

// audit keeps what was asked of this manager.
type audit struct {
	lines chan []byte // for the file

	mu   sync.Mutex // guards the fields below
	kept []cluster.Audited
	seq  uint64
	lost int // lines that had no room in lines
}

func newAudit(now time.Time) *audit {
	return &audit{lines: make(chan []byte, auditQueue), seq: uint64(max(now.UnixMicro(), 0))}
}

// add keeps a record, and returns it with its number.
func (a *audit) add(record cluster.Audited) cluster.Audited {
	a.mu.Lock()
	defer a.mu.Unlock()
	record.Seq = a.seq
	a.seq++
	if len(a.kept) == keptAudits {
		a.kept = slices.Delete(a.kept, 0, 1)
	}
	a.kept = append(a.kept, record)
	return record
}

func (a *audit) all() []cluster.Audited {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.kept)
}

// note is what is learned about one request while it is served. All of a nil one does nothing.
type note struct {
	made *store.Made // what the leader writes, when that is here

	mu      sync.Mutex // guards the fields below
	objects []cluster.AuditedObject
	unknown bool
}

// name tells of an object that is none of the database's by itself.
func (n *note) name(object cluster.AuditedObject) {
	if n == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.objects = append(n.objects, object)
}

type noteKey struct{}

func noteOf(ctx context.Context) *note {
	n, _ := ctx.Value(noteKey{}).(*note)
	return n
}

// withNote is the request with a note of its own, if its route is audited.
func withNote(r *http.Request, route *route) (*http.Request, *note) {
	if !route.audits() {
		return r, nil
	}
	n := &note{}
	ctx, made := store.CollectMade(r.Context())
	n.made = made
	return r.WithContext(context.WithValue(ctx, noteKey{}, n)), n
}

// failed hears the error that a handler returned.
func (n *note) failed(err error) {
	if n == nil || !errors.Is(err, cluster.ErrUnknownOutcome) {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.unknown = true
}

// outcome is what was changed, here or by the leader.
func (n *note) outcome() (objects []cluster.AuditedObject, unknown bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	objects = n.objects
	for _, change := range n.made.Changes() {
		if object, ok := auditedObject(change); ok && len(objects) < auditObjects {
			objects = append(objects, object)
		}
	}
	return objects, n.unknown
}

// tell puts what was changed into the header of an answer to another manager.
func (n *note) tell(header http.Header, err error) {
	if n == nil {
		return
	}
	if errors.Is(err, cluster.ErrUnknownOutcome) {
		header.Set(auditHeader, auditUnknown)
		return
	}
	if objects, _ := n.outcome(); len(objects) > 0 {
		// Texts and numbers always encode.
		text, _ := json.Marshal(objects)
		header.Set(auditHeader, url.QueryEscape(string(text)))
	}
}

// hear takes that out of the leader's answer: it is for managers only.
func (n *note) hear(header http.Header) {
	text := header.Get(auditHeader)
	header.Del(auditHeader)
	if n == nil || text == "" {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if text == auditUnknown {
		n.unknown = true
		return
	}
	var objects []cluster.AuditedObject
	if text, err := url.QueryUnescape(text); err == nil && json.Unmarshal([]byte(text), &objects) == nil {
		n.objects = objects[:min(len(objects), auditObjects)]
	}
}

// auditedObject is what is told of a change; what follows from others, such as tasks, isn't told.
func auditedObject(c store.MadeChange) (cluster.AuditedObject, bool) {
	of := c.After
	if of == nil {
		of = c.Before
	}
	kind, id, name, version := identify(of)
	if kind == "" {
		return cluster.AuditedObject{}, false
	}
	object := cluster.AuditedObject{Kind: kind, ID: id, Name: clean(name), To: c.To}
	if c.Before != nil {
		_, _, _, object.From = identify(c.Before)
	}
	if c.After == nil {
		object.From = version
	}
	return object, true
}

func identify(object any) (kind, id, name string, version uint64) {
	switch o := object.(type) {
	case *cluster.Service:
		return "service", o.ID, o.Spec.Name, o.Version
	case *cluster.Node:
		return "node", o.ID, o.Description.Hostname, o.Version
	case *cluster.Secret:
		return "secret", o.ID, o.Spec.Name, o.Version
	case *cluster.Config:
		return "config", o.ID, o.Spec.Name, o.Version
	case *cluster.Network:
		return "network", o.ID, o.Spec.Name, o.Version
	case *cluster.Cluster:
		return "cluster", o.ID, o.Spec.Name, o.Version
	}
	return "", "", "", 0
}

// clean is a text of a client's as it may be told: short, and without what a terminal would obey.
func clean(text string) string {
	return cluster.Actor(cluster.WithActor(context.Background(), text))
}

// audited is the request with a note, and end has it kept with what was answered, if that is to be told.
func (s *Server) audited(w http.ResponseWriter, r *http.Request, c call) (_ *http.Request, end func(told bool)) {
	r, n := withNote(r, c.route)
	if n == nil {
		return r, func(bool) {}
	}
	return r, func(told bool) {
		if told {
			s.keepAudit(r, c, n, answered(w))
		}
	}
}

// answered is the status of an answer.
func answered(w http.ResponseWriter) int {
	switch w := w.(type) {
	case *tracked:
		return cmp.Or(w.status, http.StatusOK)
	case *kept:
		return cmp.Or(w.status, http.StatusOK)
	}
	return http.StatusOK
}

func (s *Server) keepAudit(r *http.Request, c call, n *note, status int) {
	cred, known := r.Context().Value(credKey{}).(*syscall.Ucred)
	if known && int(cred.Pid) == os.Getpid() && c.route.method == http.MethodGet {
		return // The daemon itself looks for new join tokens every few seconds, for --token-dir.
	}
	record := cluster.Audited{
		By:    cluster.Actor(r.Context()),
		Route: c.route.method + " " + c.route.pattern, Status: status, Result: cluster.AuditDone,
	}
	if c.vars != nil && strings.Contains(c.route.pattern, "{id}") {
		record.Ref = clean(c.vars("id"))
	}
	if known {
		record.UID, record.PID, record.User = &cred.Uid, cred.Pid, userName(cred.Uid)
	}
	var unknown bool
	record.Objects, unknown = n.outcome()
	switch {
	case unknown:
		record.Result = cluster.AuditUnknown
	case status >= http.StatusInternalServerError && status != http.StatusNotImplemented:
		record.Result = cluster.AuditFailed
	case status >= http.StatusBadRequest:
		record.Result = cluster.AuditRefused
	}
	s.Audit(record)
}

// Audit keeps a record of what wasn't asked by this API: it has no time and no manager yet.
func (s *Server) Audit(record cluster.Audited) {
	record.Time, record.Manager = s.Now().UTC(), s.Hostname
	for i := range record.Objects {
		record.Objects[i].Name = clean(record.Objects[i].Name)
	}
	record = s.audit.add(record)
	switch s.AuditFile {
	case "": // The leader's log has what was changed, and by whom.
		s.logAudit(slog.LevelDebug, record)
		return
	case cluster.AuditToLog:
		s.logAudit(slog.LevelInfo, record)
		return
	}
	// Texts, numbers and times always encode.
	line, _ := json.Marshal(record)
	select {
	case s.audit.lines <- append(line, '\n'):
	default:
		s.audit.mu.Lock()
		s.audit.lost++
		s.audit.mu.Unlock()
	}
}

func (s *Server) logAudit(level slog.Level, r cluster.Audited) {
	args := []any{"by", r.By}
	if r.UID != nil {
		args = append(args, "user", r.User, "pid", r.PID)
	}
	args = append(args, "route", r.Route)
	if r.Ref != "" {
		args = append(args, "ref", r.Ref)
	}
	for _, o := range r.Objects {
		args = append(args, o.Kind, o.ID, "name", o.Name, "from", o.From, "to", o.To)
	}
	s.Log.Log(context.Background(), level, "audit", append(args, "result", r.Result, "status", r.Status)...)
}

// writeAudit writes the lines for the file, until ctx ends and none is left. The file is opened for each of them, so
// that whoever moves it away needn't say so.
func (s *Server) writeAudit(ctx context.Context) {
	for {
		select {
		case line := <-s.audit.lines:
			s.writeAuditLine(line)
			continue
		default:
		}
		select {
		case line := <-s.audit.lines:
			s.writeAuditLine(line)
		case <-ctx.Done():
			if len(s.audit.lines) == 0 {
				return
			}
		}
	}
}

func (s *Server) writeAuditLine(line []byte) {
	s.audit.mu.Lock()
	lost := s.audit.lost
	s.audit.lost = 0
	s.audit.mu.Unlock()
	err := appendLine(s.AuditFile, line, auditFileMost)
	if err != nil {
		lost++
	}
	if lost == 0 {
		return
	}
	if err == nil {
		err = errors.New("the disk is too slow")
	}
	s.Log.Error("lines of the audit log are lost", "file", s.AuditFile, "lines", lost, "err", err)
}

// appendLine adds a line to a file that only its owner may read. One that has grown to its limit is kept as FILE.1, in place
// of the one before.
func appendLine(path string, line []byte, most int64) (err error) {
	file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	info, err := file.Stat()
	switch {
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is no regular file (%s)", path, info.Mode().Type())
	case info.Mode().Perm()&0o077 != 0:
		if err := file.Chmod(0o600); err != nil {
			return err
		}
	}
	if info.Size() > 0 && info.Size()+int64(len(line)) > most {
		if err := os.Rename(path, path+".1"); err != nil {
			return err
		}
		return appendLine(path, line, most)
	}
	_, err = file.Write(line)
	return err
}

// passwd says who has which UID. It is read as it is, without the services that nsswitch.conf names: those may hang.
const passwd = "/etc/passwd"

// userName is what this machine calls the user; empty for nobody.
func userName(uid uint32) string {
	text, err := os.ReadFile(passwd)
	if err != nil {
		return ""
	}
	return nameIn(text, uid)
}

func nameIn(text []byte, uid uint32) string {
	want := strconv.FormatUint(uint64(uid), 10)
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		if fields := strings.Split(lines.Text(), ":"); len(fields) > 2 && fields[2] == want {
			return clean(fields[0])
		}
	}
	return ""
}

// showOwnAudit is what was asked of this manager, for other ones.
func (s *Server) showOwnAudit(context.Context, *request) (response, error) {
	return response{body: cluster.AuditLog{Records: append([]cluster.Audited{}, s.audit.all()...)}}, nil
}

// showAudit is what was asked of all managers, as far as they answer within a second. It needs no leader.
func (s *Server) showAudit(ctx context.Context, r *request) (response, error) {
	manager := s.Node.Manager()
	if manager == nil {
		return response{}, cmp.Or(s.Node.Starting(), s.notManager())
	}
	ctx, cancel := context.WithTimeout(ctx, auditLimit)
	defer cancel()
	log := cluster.AuditLog{Records: append([]cluster.Audited{}, s.audit.all()...)}
	var mu sync.Mutex // guards log
	var asked sync.WaitGroup
	for node := range manager.Store().View().Nodes() {
		if node.Role != swarm.NodeRoleManager || node.ID == manager.NodeID() {
			continue
		}
		asked.Go(func() {
			theirs, err := s.fetchAudit(ctx, manager.Client(), node.ManagerAddr)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				s.Log.Debug("a manager doesn't tell its audit log", "node", node.ID, "error", err)
				log.Missing = append(log.Missing, node.Description.Hostname)
			}
			log.Records = append(log.Records, theirs.Records...)
		})
	}
	asked.Wait()
	slices.Sort(log.Missing)
	slices.SortStableFunc(log.Records, func(a, b cluster.Audited) int {
		return cmp.Or(a.Time.Compare(b.Time), cmp.Compare(a.Manager, b.Manager), cmp.Compare(a.Seq, b.Seq))
	})
	return response{body: log}, nil
}

func (s *Server) fetchAudit(ctx context.Context, client *http.Client, addr string) (log cluster.AuditLog, err error) {
	ask, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+addr+"/v1/api"+pathOwnAudit, nil)
	if err != nil {
		return log, err
	}
	answer, err := roundTrip(client, ask)
	if err != nil {
		return log, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return log, fmt.Errorf("ask manager %s: %s", addr, answer.Status)
	}
	return log, json.NewDecoder(io.LimitReader(answer.Body, auditAnswer)).Decode(&log)
}
