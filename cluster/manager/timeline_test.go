package manager

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"testing"
)

func TestWhyMissing_IsForPeople(t *testing.T) {
	ask := func(err error) error {
		return fmt.Errorf("ask for the timeline: %w", &url.Error{Op: "Get", URL: "https://192.0.2.1:2377/v1/timeline?last=30s", Err: err})
	}
	for want, err := range map[string]error{
		"": nil,
		"dial tcp 192.0.2.1:2377: connect: connection refused": ask(errors.New("dial tcp 192.0.2.1:2377: connect: connection refused")),
		"it didn't answer within 1s":                           ask(context.DeadlineExceeded),
		"EOF":                                                  errors.New("EOF"),
	} {
		if got := whyMissing(err); got != want {
			t.Errorf("%v: %q, want %q", err, got, want)
		}
	}
}
