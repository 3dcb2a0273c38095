package store

// maxInterned bounds the interner: past it, it starts anew, which costs memory
// for duplicates but is never wrong.
const maxInterned = 1 << 16

// interner lets records share the strings that most of them have in common:
// decoding makes a copy for each. Package unique is no help here: it forgets a string at
// the next collection when nobody keeps its Handle, and Docker's types have strings. So
// after each collection there would be another copy of all that is written again.
type interner struct{ known map[string]string }

func newInterner() *interner { return &interner{known: make(map[string]string)} }

func (in *interner) share(text *string) {
	if *text == "" {
		return
	}
	if known, ok := in.known[*text]; ok {
		*text = known
		return
	}
	if len(in.known) >= maxInterned {
		clear(in.known)
	}
	in.known[*text] = *text
}

// text is what share makes of a text, without a copy of one that is known.
func (in *interner) text(of []byte) string {
	if known, ok := in.known[string(of)]; ok {
		return known
	}
	text := string(of)
	in.share(&text)
	return text
}
