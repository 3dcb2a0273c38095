package dns

import (
	"bytes"
	"crypto/sha256"

	"skep/agent/network/helper"
)

// Fit is fit, for the fuzzing of whole answers.
var Fit = fit

// Exchange asks a resolver.
var Exchange = exchange

// ParseFile reads the content of a file of names that was written after this start of the machine.
func ParseFile(data []byte, boot string) (*Names, error) { return new(reader).parse(data, boot) }

// SealFile makes a body the content of a file.
func SealFile(body []byte) []byte {
	sum := sha256.Sum256(body)
	return bytes.Join([][]byte{[]byte(fileHead), sum[:], body}, nil)
}

// FileBody is the place of the body in a file.
const FileBody = len(fileHead) + sha256.Size

// FileOf is the content of a file of names that is written after this start of the machine.
func FileOf(n *Names, boot string) ([]byte, error) { return fileOf(n, boot) }

// WhoIs tells which process answers from the file, and of which build it is.
func WhoIs(file string) (pid int, build string, err error) {
	who, err := helper.WhoIs(file)
	return who.PID, who.Build, err
}
