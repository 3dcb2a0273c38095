package cluster

import (
	"context"
	"strings"
	"unicode"
)

type actorKey struct{}

// maxActor is how many bytes of who asked for something are kept.
const maxActor = 128

// WithActor notes who asks for what is done under the context, for the log: a socket's
// peer and its node. It decides nothing.
func WithActor(ctx context.Context, who string) context.Context {
	who = strings.Map(func(c rune) rune {
		if !unicode.IsPrint(c) || c == unicode.ReplacementChar {
			return -1
		}
		return c
	}, strings.ToValidUTF8(who[:min(len(who), maxActor)], ""))
	return context.WithValue(ctx, actorKey{}, who)
}

// Actor is who asks; empty for managers and agents themselves.
func Actor(ctx context.Context) string {
	who, _ := ctx.Value(actorKey{}).(string)
	return who
}
