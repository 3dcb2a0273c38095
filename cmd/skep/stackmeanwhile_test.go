package main

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// A deployment that another one overtook while it waited doesn't say that all is as its file says.
func TestStackDeploy_SaysThatItWasOvertaken(t *testing.T) {
	host := simulated(t)
	env := []string{"SKEP_HOST=" + host}
	deploy := func(value string, args ...string) result {
		file := "name: shop\nservices:\n  web: {image: web, environment: {VALUE: " + value + "}, deploy: {update_config: {monitor: 3s}}}\n  db: {image: db}" + off
		return skepReading(t, file, env, append([]string{"stack", "deploy", "--resolve-image", "never", "-c", "-"}, args...)...)
	}
	overtaken := make(chan result)
	go func() { overtaken <- deploy("first") }()
	for begun := time.Now(); !strings.Contains(skep(t, env, "stack", "history", "shop").stdout, "\n1 "); time.Sleep(50 * time.Millisecond) {
		if time.Since(begun) > 20*time.Second {
			t.Fatal("nothing is deployed")
		}
	}
	if r := deploy("second", "--detach"); r.status != 0 {
		t.Fatalf("%+v", r)
	}
	if r := <-overtaken; r.status != 1 || !strings.Contains(r.stderr, "changed meanwhile by somebody else: shop_web\n") {
		t.Errorf("%+v", r)
	}
	if r := deploy("second"); r.status != 0 {
		t.Errorf("%+v", r)
	}
}

// Deployments of one stack at the same time, each of services of its own, are all remembered.
func TestStackDeploy_AtOnceAllRemembered(t *testing.T) {
	host := simulated(t)
	env := []string{"SKEP_HOST=" + host}
	const count = 5
	var all sync.WaitGroup
	for i := range count {
		all.Go(func() {
			file := fmt.Sprintf("name: shop\nservices: {s%d: {image: web}}%s", i, off)
			r := skepReading(t, file, env, "stack", "deploy", "--detach", "--resolve-image", "never", "-c", "-")
			if r.status != 0 || r.stderr != "" {
				t.Errorf("%+v", r)
			}
		})
	}
	all.Wait()
	if r := skep(t, env, "stack", "history", "shop"); strings.Count(r.stdout, "\n") != count+1 {
		t.Errorf("%+v", r)
	}
}

// Of a stack that there isn't, and of a name that none can have, the commands say so.
func TestStack_NothingToGoBackTo(t *testing.T) {
	node := newFakeNode(t)
	for _, list := range []string{"networks", "secrets", "configs", "services"} {
		node.answer("GET /"+list, "[]")
	}
	for _, c := range []struct {
		says string
		args []string
	}{
		{"no deployment of stack shop is remembered", []string{"history", "shop"}},
		{"no deployment of stack shop is remembered", []string{"rollback", "shop"}},
		{"no deployment of stack shop is remembered", []string{"rollback", "shop", "3"}},
		{`"" can't be the name of a stack`, []string{"history", ""}},
		{`"a b" can't be the name of a stack`, []string{"rollback", "a b"}},
		{`"" can't be the name of a stack`, []string{"export", ""}},
		{`deployment "0" won't do`, []string{"rollback", "shop", "0"}},
		{`deployment "99999999999999999999" won't do`, []string{"rollback", "shop", "99999999999999999999"}},
	} {
		if r := skep(t, []string{"SKEP_HOST=" + node.url}, append([]string{"stack"}, c.args...)...); r.status != 1 || !strings.Contains(r.stderr, c.says) || r.stdout != "" {
			t.Errorf("%v: %+v", c.args, r)
		}
	}
}
