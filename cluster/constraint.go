package cluster

import (
	"fmt"
	"math"
	"net/netip"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/docker/api/types/swarm"
)

// Constraint is one condition that a node must meet, in Swarm's language and a few
// words more. A service's constraints are all to be met. Each is one of
//
//	KEY==VALUE  KEY!=VALUE         as Swarm has them
//	KEY in (A,B)  KEY notin (A,B)
//	exists KEY  !exists KEY        or with the word behind the key
//	KEY<NUMBER  KEY>NUMBER         which no text meets
//	KEY=~REGEXP  KEY!~REGEXP       RE2, of the whole value and with regard to case
//
// Keys are node.id, node.hostname, node.ip (an address or a network), node.role,
// node.platform.os, node.platform.arch, node.labels.NAME and engine.labels.NAME; a label
// that isn't there is empty. A key that means nothing is refused, where Swarm takes it and
// never finds a node. Keys, and values but for regular expressions, are compared without
// regard to case. Preferences spread over the same keys.
type Constraint struct {
	// Key is what of the node is looked at, as written.
	Key string
	// Op says how it is compared.
	Op Operator
	// Values are what it is compared with: none with Exists and Absent, any number
	// with In and NotIn, else one.
	Values []string

	number float64        // of Less and More
	form   *regexp.Regexp // of Like and Unlike
}

// Operator is how a constraint compares.
type Operator string

// The operators. Absent is written before the key, as Exists is; both may also
// stand behind it.
const (
	Equal   Operator = "=="
	Unequal Operator = "!="
	Like    Operator = "=~"
	Unlike  Operator = "!~"
	Less    Operator = "<"
	More    Operator = ">"
	In      Operator = "in"
	NotIn   Operator = "notin"
	Exists  Operator = "exists"
	Absent  Operator = "!exists"
)

const (
	nodeLabelPrefix   = "node.labels."
	engineLabelPrefix = "engine.labels."
	// MaxConstraints is how many constraints a service may have, and maxConstraintsText how
	// many bytes they may have together: each is compared with each node, again and again.
	MaxConstraints     = 256
	maxConstraintsText = 16 << 10
	// maxExpression is how long a regular expression may be, in bytes, and maxProgram how
	// many steps those of a service may have together: a{1000} has a thousand. Each takes
	// memory, and time with each letter that is looked at.
	maxExpression = 256
	maxProgram    = 2000

	constraintGrammar = "it is KEY==VALUE, KEY!=VALUE, KEY in (A,B), KEY notin (A,B), exists KEY, !exists KEY, " +
		"KEY<NUMBER, KEY>NUMBER, KEY=~REGEXP or KEY!~REGEXP"
	constraintKeys = "node.id, node.hostname, node.ip, node.role, node.platform.os, node.platform.arch, node.labels.NAME or engine.labels.NAME"
)

var (
	constraintKey   = regexp.MustCompile(`^(?i)[a-z_][a-z0-9\-_.]+$`)
	constraintValue = regexp.MustCompile(`^(?i)[a-z0-9:\-_\s\.\*\(\)\?\+\[\]\\\^\$\|\/]+$`)
	keyCharacters   = regexp.MustCompile(`^[A-Za-z0-9\-_.]*`)
)

// ParseConstraints reads a service's constraints. All of them must be met.
func ParseConstraints(texts []string) ([]Constraint, error) {
	var constraints []Constraint
	for _, text := range texts {
		c, err := parseConstraint(text)
		if err != nil {
			return nil, fmt.Errorf("parse constraint %q: %w: %w", text, err, ErrInvalid)
		}
		constraints = append(constraints, c)
	}
	return constraints, nil
}

// CheckConstraints refuses what can't be read, and what can be but is met by no
// node: a key that means nothing, an address that is none.
func CheckConstraints(texts []string) error {
	if len(texts) > MaxConstraints {
		return Errorf(ErrInvalid, "Placement.Constraints: %d are more than %d: label the nodes that are meant, and ask for the label", len(texts), MaxConstraints)
	}
	bytes, steps := 0, 0
	for i, text := range texts {
		if bytes += len(text); bytes > maxConstraintsText {
			return Errorf(ErrInvalid, "Placement.Constraints: have more than %d bytes together: label the nodes that are meant, and ask for the label", maxConstraintsText)
		}
		// One after the other, since each regular expression may take megabytes.
		parsed, err := ParseConstraints(texts[i : i+1])
		if err != nil {
			return err
		}
		c := parsed[0]
		if steps += c.steps(); steps > maxProgram {
			return Errorf(ErrInvalid, "Placement.Constraints: the regular expressions have more than %d steps together: repeat less, x{500} has 500", maxProgram)
		}
		if _, _, known := lookUp(c.Key, &Node{}); !known {
			return fmt.Errorf("parse constraint %q: key '%s' means nothing, there are %s: %w", texts[i], c.Key, constraintKeys, ErrInvalid)
		}
		if !strings.EqualFold(c.Key, "node.ip") || c.Op == Like || c.Op == Unlike {
			continue
		}
		for _, value := range c.Values {
			if _, readable := matchIP("", value); !readable {
				return fmt.Errorf("parse constraint %q: '%s' is neither an IP address nor a network such as 10.1.0.0/16: %w", texts[i], value, ErrInvalid)
			}
		}
	}
	return nil
}

func parseConstraint(text string) (Constraint, error) {
	text = strings.TrimSpace(text)
	words := strings.Fields(text)
	if len(words) == 2 { // exists KEY, or KEY exists
		for i, key := range []string{words[1], words[0]} {
			op := Operator(strings.ToLower(words[i]))
			if (op == Exists || op == Absent) && keyCharacters.FindString(key) == key {
				return Constraint{Key: key, Op: op}, checkKey(key)
			}
		}
	}
	key := keyCharacters.FindString(text)
	op, rest := cutOperator(strings.TrimSpace(text[len(key):]))
	if op == "" {
		return Constraint{}, fmt.Errorf("constraint expected one operator from ==, !=, =~, !~, <, >, in, notin, exists, !exists: %s", constraintGrammar)
	}
	if err := checkKey(key); err != nil {
		return Constraint{}, err
	}
	c := Constraint{Key: key, Op: op, Values: []string{rest}}
	return c, c.read()
}

func checkKey(key string) error {
	if !constraintKey.MatchString(key) {
		return fmt.Errorf("key '%s' is invalid: %s", key, constraintGrammar)
	}
	return nil
}

// cutOperator takes the operator off the beginning of text; it is empty when
// there is none. A list keeps its parentheses.
func cutOperator(text string) (Operator, string) {
	for _, op := range []Operator{Equal, Unequal, Like, Unlike, Less, More} {
		if rest, ok := strings.CutPrefix(text, string(op)); ok {
			return op, strings.TrimSpace(rest)
		}
	}
	word, rest, ok := strings.Cut(text, "(")
	if op := Operator(strings.ToLower(strings.TrimSpace(word))); ok && (op == In || op == NotIn) {
		return op, "(" + rest
	}
	return "", text
}

// read makes of Values what Op compares with.
func (c *Constraint) read() error {
	switch text := c.Values[0]; c.Op {
	case Like, Unlike:
		if text == "" || len(text) > maxExpression {
			return fmt.Errorf("a regular expression has 1 to %d bytes", maxExpression)
		}
		// One that leaves these parentheses is none.
		_, err := regexp.Compile(text)
		if err == nil {
			c.form, err = regexp.Compile(`^(?:` + text + `)$`)
		}
		if err != nil {
			return fmt.Errorf("'%s' is no regular expression (RE2): %w", text, err)
		}
		return nil
	case Less, More:
		number, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsNaN(number) {
			return fmt.Errorf("'%s' is not a number: %s", text, constraintGrammar)
		}
		if name, _ := labelName(c.Key); name == "" {
			return fmt.Errorf("only labels are compared with numbers, not %s", c.Key)
		}
		c.number = number
		return nil
	case In, NotIn:
		list, closed := strings.CutSuffix(text, ")")
		if !closed {
			return fmt.Errorf("the list isn't closed: %s", constraintGrammar)
		}
		c.Values = strings.Split(list[1:], ",")
	}
	for i, value := range c.Values {
		c.Values[i] = strings.TrimSpace(value)
		if !constraintValue.MatchString(c.Values[i]) {
			return fmt.Errorf("value '%s' is invalid: %s", value, constraintGrammar)
		}
	}
	return nil
}

// steps is how large the program of the constraint's regular expression is.
func (c *Constraint) steps() int {
	if c.form == nil {
		return 0
	}
	parsed, err := syntax.Parse(c.form.String(), syntax.Perl)
	if err != nil {
		return 0 // It was compiled.
	}
	program, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return 0
	}
	return len(program.Inst)
}

// String gives the constraint in the language it was read from.
func (c Constraint) String() string {
	switch c.Op {
	case Exists, Absent:
		return string(c.Op) + " " + c.Key
	case In, NotIn:
		return c.Key + " " + string(c.Op) + " (" + strings.Join(c.Values, ",") + ")"
	}
	return c.Key + string(c.Op) + c.Values[0]
}

// Match tells whether the node meets the constraint. A label that the node
// doesn't have is empty, so !=, notin and most of !~ are met, and no number; a key
// that means nothing is met by no node.
func (c Constraint) Match(node *Node) bool {
	actual, present, known := lookUp(c.Key, node)
	if !known {
		return false
	}
	switch c.Op {
	case Exists, Absent:
		return present == (c.Op == Exists)
	case Like, Unlike:
		return c.form.MatchString(actual) == (c.Op == Like)
	case Less, More:
		number, err := strconv.ParseFloat(strings.TrimSpace(actual), 64)
		return err == nil && (c.Op == Less && number < c.number || c.Op == More && number > c.number)
	}
	wanted := c.Op == Equal || c.Op == In
	if strings.EqualFold(c.Key, "node.ip") {
		found := false
		for _, value := range c.Values {
			matches, readable := matchIP(actual, value)
			if !readable {
				return false
			}
			found = found || matches
		}
		return found == wanted
	}
	return slices.ContainsFunc(c.Values, func(value string) bool { return strings.EqualFold(value, actual) }) == wanted
}

// lookUp finds what a key means on a node: its value, whether it has one, and
// whether the key means anything.
func lookUp(key string, node *Node) (value string, present, known bool) {
	switch strings.ToLower(key) {
	case "node.id":
		value = node.ID
	case "node.hostname":
		value = node.Description.Hostname
	case "node.ip":
		value = node.Status.Addr
	case "node.role":
		value = string(node.Role)
	case "node.platform.os":
		value = node.Description.Platform.OS
	case "node.platform.arch":
		value = node.Description.Platform.Architecture
	default:
		name, engine := labelName(key)
		labels := node.Spec.Labels
		if engine {
			labels = node.Description.Engine.Labels
		}
		value, present = labels[name]
		return value, present, name != ""
	}
	return value, value != "", true
}

// labelName tells which label a key means, and whether it is one of the engine's;
// it is empty when the key is no label's. Prefixes are found without regard to
// case, but a label's own name is exact.
func labelName(key string) (name string, engine bool) {
	for _, prefix := range []string{nodeLabelPrefix, engineLabelPrefix} {
		if len(key) > len(prefix) && strings.EqualFold(key[:len(prefix)], prefix) {
			return key[len(prefix):], prefix == engineLabelPrefix
		}
	}
	return "", false
}

// matchIP compares an address with another one or, when want has a slash, with a
// network. Readable is false when want is neither.
func matchIP(actual, want string) (matches, readable bool) {
	node, err := netip.ParseAddr(actual)
	if address, e := netip.ParseAddr(want); e == nil {
		return err == nil && node.Unmap() == address.Unmap(), true
	}
	if network, e := netip.ParsePrefix(want); e == nil {
		return err == nil && network.Contains(node.Unmap()), true
	}
	return false, false
}

// architectures are other names for what engines and images may call otherwise.
var architectures = map[string]string{"x86_64": "amd64", "aarch64": "arm64"}

// PlatformMatches tells whether a node is of one of the platforms; none means
// any, and so does an empty field.
func PlatformMatches(node *Node, platforms []swarm.Platform) bool {
	if len(platforms) == 0 {
		return true
	}
	is := node.Description.Platform
	for _, want := range platforms {
		if (want.OS == "" || strings.EqualFold(want.OS, is.OS)) &&
			(want.Architecture == "" || architecture(want.Architecture) == architecture(is.Architecture)) {
			return true
		}
	}
	return false
}

func architecture(name string) string {
	name = strings.ToLower(name)
	if other, ok := architectures[name]; ok {
		return other
	}
	return name
}
