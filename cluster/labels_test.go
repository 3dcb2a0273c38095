package cluster

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// The README's table of labels is what this package knows, word for word.
func TestLabels_StandInTheReadme(t *testing.T) {
	const head = "| label | of a | what it does |\n|---|---|---|\n"
	sorted := slices.SortedFunc(slices.Values(knownLabels), func(a, b *knownLabel) int {
		return cmp.Or(cmp.Compare(b.on, a.on), cmp.Compare(a.name, b.name)) // services first
	})
	want := head
	for _, l := range sorted {
		equals := "="
		if l.check == nil {
			equals = ""
		}
		want += fmt.Sprintf("| `%s%s%s` | %s | %s |\n", l.name, equals, l.example, l.on, l.doc)
	}
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), head)
	table, _, _ = strings.Cut(table, "\n\n")
	if got := head + table + "\n"; got != want {
		t.Errorf("the README's table of labels is\n%s\nwant\n%s", got, want)
	}
}

func TestLabels_ExamplesAreValues(t *testing.T) {
	for _, l := range knownLabels {
		label, value := l.name, l.example
		if l.check == nil {
			rest, of, _ := strings.Cut(l.example, "=")
			label, value = l.name+rest, of
		}
		if err := CheckLabels(l.on, map[string]string{label: value, "mine": "1"}); err != nil {
			t.Errorf("%s: %v", label, err)
		}
		for _, on := range []LabelScope{OnCluster, OnNode, OnService} {
			err := CheckLabels(on, map[string]string{label: value})
			if on != l.on && (!errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "skep knows no such label of a "+string(on))) {
				t.Errorf("%s on a %s: %v", label, on, err)
			}
		}
	}
}

// What the API refuses counts for nothing where it is read.
func TestLabels_WhatIsRefusedIsNoValue(t *testing.T) {
	for label, values := range map[*Label[[]string]][]string{LabelAffinity: {"", "a,", "a b", "-"}, LabelAntiAffinity: {",a"}} {
		for _, value := range values {
			labels := map[string]string{label.Name: value}
			if got, ok := label.Of(labels); ok || CheckLabels(OnService, labels) == nil {
				t.Errorf("%s=%q: %v", label.Name, value, got)
			}
		}
	}
	for _, value := range []string{"", "yes", "True", "1"} {
		labels := map[string]string{LabelFence.Name: value}
		if on, ok := LabelFence.Of(labels); on || ok || CheckLabels(OnService, labels) == nil {
			t.Errorf("fence %q: %v", value, on)
		}
	}
	for _, value := range []string{"", "0s", "-1s", "25h", "soon"} {
		labels := map[string]string{LabelRestartMaxDelay.Name: value}
		if d, ok := LabelRestartMaxDelay.Of(labels); ok || CheckLabels(OnService, labels) == nil {
			t.Errorf("longest delay %q: %v", value, d)
		}
	}
	if names, ok := LabelAntiAffinity.Of(map[string]string{LabelAntiAffinity.Name: "web, db"}); !ok || !slices.Equal(names, []string{"web", "db"}) {
		t.Errorf("two services: %q", names)
	}
}
