package main

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestConsole_LetsABrowserIn runs the command as users do: what it prints lets one browser in,
// which gets the node's pages, and the command ends with status 0 when it is told to.
func TestConsole_LetsABrowserIn(t *testing.T) {
	node := newFakeNode(t)
	node.answer("POST /skep/v1/console/session", `{"Code":"open-sesame"}`)
	node.answer("POST /skep/v1/console/redeem", `{"Grant":"write"}`)
	node.answer("GET /console/services", `{"page":"of the node"}`)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "--host", node.url, "console", "--write", "--no-browser")
	cmd.Env = []string{asCommand + "=1", "HOME=" + t.TempDir(), "PATH=" + os.Getenv("PATH"), "SSH_CONNECTION=a b c d"}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	var printed []string
	for len(printed) < 2 && lines.Scan() {
		printed = append(printed, lines.Text())
	}
	if len(printed) < 2 || !strings.HasPrefix(printed[0], "From where you are: ssh -L ") {
		t.Fatalf("it printed %q", printed)
	}
	address, err := url.Parse(printed[1])
	if err != nil || address.Hostname() != "127.0.0.1" || address.Fragment != "open-sesame" {
		t.Fatalf("it printed %q: %v", printed, err)
	}
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	browser := &http.Client{Jar: jar}
	defer browser.CloseIdleConnections()
	ask := func(method, path, form string) string {
		t.Helper()
		r, err := http.NewRequestWithContext(ctx, method, "http://"+address.Host+path, strings.NewReader(form))
		if err != nil {
			t.Fatal(err)
		}
		if form != "" {
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			r.Header.Set("Origin", "http://"+address.Host)
		}
		answer, err := browser.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(body)
	}
	if body := ask("GET", "/console/services", ""); !strings.Contains(body, `action="/login"`) {
		t.Errorf("without a code: %s", body)
	}
	ask("POST", "/login", "code="+address.Fragment)
	if body := ask("GET", "/console/services", ""); !strings.Contains(body, "of the node") {
		t.Errorf("with a code: %s", body)
	}
	asked := node.asked("/console/services")
	if len(asked) != 1 || asked[0].Header.Get("Skep-Console") != "write" {
		t.Errorf("the node was asked %v", asked)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("it ended with %v", err)
	}
}
