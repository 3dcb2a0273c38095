package cmd

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"
)

// world is what code must be given, so that a test can give another: clocks, chance
// and the network. Timers aren't in it: in a bubble of testing/synctest they are fake.
var world = map[string][]string{
	"time":         {"Now", "Since", "Until"},
	"math/rand":    {"*"},
	"math/rand/v2": {"*"},
	"crypto/rand":  {"*"},
	"net":          {"Dial", "DialTimeout", "Listen", "ListenPacket"},
}

// takes are the places that take of the world by themselves, and why they may. A
// function that is only named, as a default, isn't called.
var takes = map[string]string{
	"agent/agent.go rand.New":                         "of a seed that was given",
	"agent/agent.go rand.NewChaCha8":                  "of a seed that was given",
	"agent/network/helper/door.go time.Now":           "deadlines of the kernel's",
	"agent/network/dns/process.go time.Now":           "a deadline of the kernel's",
	"agent/network/dns/server.go time.Now":            "deadlines of the kernel's",
	"agent/network/dns/socket.go time.Now":            "deadlines of the kernel's",
	"agent/network/linux/nft.go time.Now":             "a deadline of the kernel's",
	"cluster/api/console/proxy.go time.Now":           "a deadline of the kernel's",
	"cluster/api/engine.go time.Now":                  "the age of a cache of the engine's versions",
	"cluster/api/server.go time.Now":                  "a deadline of the kernel's",
	"cluster/api/tracked.go time.Now":                 "deadlines of the kernel's",
	"cluster/ca/keyfile.go rand.Read":                 "nonces: never again the same, whoever gives the randomness",
	"cluster/dispatch/handler.go time.Now":            "a deadline of the kernel's",
	"cluster/gossip/gossip.go net.Listen":             "where memberlist is about to listen: its own error doesn't say what is wrong",
	"cluster/gossip/gossip.go net.ListenPacket":       "likewise",
	"cluster/manager/admit.go time.Now":               "a deadline of the kernel's",
	"cluster/manager/campaign/campaign.go time.Since": "raft's own clock",
	"cluster/manager/leader.go time.Since":            "raft's own clock",
	"cluster/manager/status.go time.Since":            "raft's own clock",
	"cluster/node/consoleport.go net.Listen":          "as the API's sockets",
	"cluster/node/listen.go net.Dial":                 "the API's sockets are the machine's own",
	"cluster/node/listen.go net.Listen":               "the API's sockets are the machine's own",
	"cluster/node/metricsport.go net.Listen":          "as the API's sockets",
	"cluster/node/network.go net.Listen":              "this is the network that is given",
	"store/seal/ring.go rand.Read":                    "nonces: never again the same, whoever gives the randomness",
	"store/seal/stream.go rand.Read":                  "nonces: never again the same, whoever gives the randomness",
	"cluster/manager/peers/authorize.go time.Since":   "raft's own clock",
	"cluster/manager/peers/calls.go time.Now":         "a deadline of the kernel's",
}

// TestGiven_NobodyTakesOfTheWorld finds calls of what should have been passed in.
func TestGiven_NobodyTakesOfTheWorld(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range list(t) {
		path := strings.TrimPrefix(p.ImportPath, "skep/")
		if strings.HasPrefix(path, "cmd") || strings.HasSuffix(path, "test") {
			continue
		}
		for _, name := range p.GoFiles {
			for _, call := range taken(t, filepath.Join(p.Dir, name)) {
				place := path + "/" + name + " " + call
				seen[place] = true
				if takes[place] == "" {
					t.Errorf("%s: let it be passed in, or say in cmd/given_test.go why not", place)
				}
			}
		}
	}
	for place := range takes {
		if !seen[place] {
			t.Errorf("%s is allowed and isn't there", place)
		}
	}
}

// taken lists what a file takes of the world.
func taken(t *testing.T, path string) (calls []string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	forbidden := map[string][]string{}
	for _, spec := range file.Imports {
		imported := strings.Trim(spec.Path.Value, `"`)
		names, is := world[imported]
		if !is {
			continue
		}
		local := filepath.Base(strings.TrimSuffix(imported, "/v2"))
		if spec.Name != nil {
			local = spec.Name.Name
		}
		forbidden[local] = names
	}
	ast.Inspect(file, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		selector, ok := call.Fun.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if of, ok := selector.X.(*ast.Ident); ok {
			for _, name := range forbidden[of.Name] {
				if name == "*" || name == selector.Sel.Name {
					calls = append(calls, of.Name+"."+selector.Sel.Name)
				}
			}
		}
		return true
	})
	return calls
}
