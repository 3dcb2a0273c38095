package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"skep/cmd/skep/up"
)

func TestUnit_IsPrinted(t *testing.T) {
	if r := skep(t, nil, "unit"); r.status != 0 || r.stdout != unit(t) {
		t.Errorf("status %d: %s%s", r.status, r.stdout, r.stderr)
	}
	if r := skep(t, nil, "unit", "--mark"); r.stdout != up.UnitMark+unit(t) {
		t.Errorf("with a mark: %s", r.stdout)
	}
}

// unreachable has a program stand for the system's ssh that reaches nothing, and returns the environment for it.
func unreachable(t *testing.T) []string {
	t.Helper()
	bin := t.TempDir()
	script := "#!/bin/sh\necho 'ssh: connect to host m1 port 22: No route to host' >&2\nexit 255\n"
	if err := os.WriteFile(filepath.Join(bin, "ssh"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return []string{"PATH=" + bin + ":" + os.Getenv("PATH")}
}

func TestCheck_SaysWhatSSHSays(t *testing.T) {
	file := filepath.Join(t.TempDir(), "cluster.yml")
	r := skep(t, unreachable(t), "check", "--file", file, "m1")
	if r.status != exitProblems || !strings.Contains(r.stdout, "m1: ssh m1: ssh: connect to host m1 port 22: No route to host") {
		t.Errorf("status %d: %s%s", r.status, r.stdout, r.stderr)
	}
	r = skep(t, unreachable(t), "check", "--json", "--file", file, "m1")
	var found struct {
		Machines map[string]up.Sight
		Problems []up.Problem
	}
	if err := json.Unmarshal([]byte(r.stdout), &found); err != nil || r.status != exitProblems || len(found.Problems) != 1 || found.Problems[0].Machine != "m1" || found.Machines["m1"].Err == "" {
		t.Errorf("status %d, %v: %s", r.status, err, r.stdout)
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("a check writes the list")
	}
	if log, err := os.ReadFile(strings.TrimSuffix(file, ".yml") + ".log"); err != nil || !strings.Contains(string(log), "m1: connect") {
		t.Errorf("the log: %v: %s", err, log)
	}
}

func TestUp_RefusesWhatMakesNoSense(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "cluster.yml")
	if err := os.WriteFile(file, []byte("machines: [{host: m1}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for args, says := range map[string]string{
		"up --file " + dir + "/none.yml":          "name the machines",
		"down --file " + dir + "/none.yml":        "there is no",
		"up --file " + file + " --label a=b":      "machines that are named beside it",
		"up --file " + file + " m2 --label a":     "want NAME=VALUE",
		"up --file " + file + " --remove m1":      "take it off the list first",
		"up --file " + file + " --remove -x":      "want what ssh takes",
		"up --file " + file + " --workers m1":     "change that there",
		"up --file " + file + " --binary " + file: "no program for Linux",
		"image push --file " + file + " app@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef": "a digest is a registry's",
		"image push --file " + file + " app:1 m9": "isn't in",
	} {
		r := skep(t, unreachable(t), strings.Fields(args)...)
		if r.status != 1 || !strings.Contains(r.stderr, says) {
			t.Errorf("skep %s: status %d, %s%s, want something with %q", args, r.status, r.stdout, r.stderr, says)
		}
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "machines: [{host: m1}]\n" {
		t.Errorf("the list was changed: %v: %s", err, text)
	}
}

func TestArchitecture_IsReadFromTheFile(t *testing.T) {
	text, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	if got, err := architecture(text); err != nil || got != runtime.GOARCH {
		t.Errorf("%s, %v", got, err)
	}
}

func TestContextHost_HasTheSocket(t *testing.T) {
	for host, want := range map[string]string{
		"m1": "ssh://m1/run/skep/skep.sock", "root@m1": "ssh://root@m1/run/skep/skep.sock", "ssh://ann@m1:2222": "ssh://ann@m1:2222/run/skep/skep.sock",
	} {
		if got := contextHost(host); got != want {
			t.Errorf("%s: %s, want %s", host, got, want)
		}
	}
}
