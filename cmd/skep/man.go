package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/docker/cli/cli"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// newManCommand writes a manual page for each command. It is hidden, since who has a package has
// the pages. cobra could write them, by a parser of Markdown that would be in every daemon.
func newManCommand(version, built string) *cobra.Command {
	return &cobra.Command{
		Use:    "man DIRECTORY",
		Short:  "Write a manual page of each command",
		Hidden: true,
		Args:   cli.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			home, _ := os.UserHomeDir()
			day, err := time.Parse(time.RFC3339, built)
			if err != nil {
				return writeMan(cmd.Root(), args[0], manual{version, "", home})
			}
			return writeMan(cmd.Root(), args[0], manual{version, day.Format(time.DateOnly), home})
		},
	}
}

// manual is what all pages have of the world: the version and its date, and the home directory
// that defaults of flags may begin with, which is another one for who reads them.
type manual struct{ version, date, home string }

// writeMan writes the page of a command and those of the commands below it.
func writeMan(cmd *cobra.Command, dir string, m manual) error {
	if err := os.WriteFile(filepath.Join(dir, pageOf(cmd)+".1"), m.page(cmd), 0o644); err != nil {
		return fmt.Errorf("write manual pages: %w", err)
	}
	for _, sub := range shown(cmd) {
		if err := writeMan(sub, dir, m); err != nil {
			return err
		}
	}
	return nil
}

// shown are the commands that help shows, too.
func shown(cmd *cobra.Command) []*cobra.Command {
	return slices.DeleteFunc(slices.Clone(cmd.Commands()), func(c *cobra.Command) bool {
		return !c.IsAvailableCommand() || c.IsAdditionalHelpTopicCommand()
	})
}

// pageOf is the name of a command's page: skep-service-create.
func pageOf(cmd *cobra.Command) string { return strings.ReplaceAll(cmd.CommandPath(), " ", "-") }

// page is the manual page of a command, for troff.
func (m manual) page(cmd *cobra.Command) []byte {
	var b bytes.Buffer
	say := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	say(`.TH "%s" 1 "%s" "skep %s" "skep"`, strings.ToUpper(pageOf(cmd)), m.date, roff(m.version))
	say(".SH NAME\n%s \\- %s", roff(pageOf(cmd)), roff(cmd.Short))
	_, operands, _ := strings.Cut(cmd.Use, " ")
	say(".SH SYNOPSIS\n\\fB%s\\fR %s", roff(cmd.CommandPath()), roff(operands))
	text := cmd.Long
	if text == "" {
		text = cmd.Short + "."
	}
	say(".SH DESCRIPTION\n%s", paragraphs(text))
	subs := shown(cmd)
	if len(subs) > 0 {
		say(".SH COMMANDS")
		for _, sub := range subs {
			say(".TP\n\\fB%s\\fR(1)\n%s", roff(pageOf(sub)), roff(sub.Short))
		}
	}
	m.flags(&b, cmd.NonInheritedFlags())
	if cmd.Example != "" {
		say(".SH EXAMPLES\n.nf\n%s\n.fi", roff(cmd.Example))
	}
	switch {
	case !cmd.HasParent():
		say(".SH ENVIRONMENT\n.TP\n\\fB%s\\fR\nThe node to speak to, unless \\fB\\-\\-host\\fR names one.", hostVariable)
		say(".SH FILES\n.TP\n\\fI%s\\fR\nWhere a node serves its API.", roff(strings.TrimPrefix(defaultHost, "unix://")))
	case cmd.Parent().HasParent():
		say(".SH SEE ALSO\n\\fBskep\\fR(1), \\fB%s\\fR(1)", roff(pageOf(cmd.Parent())))
	default:
		say(".SH SEE ALSO\n\\fBskep\\fR(1)")
	}
	return b.Bytes()
}

// flags writes the options of a command, as its help does.
func (m manual) flags(b *bytes.Buffer, flags *pflag.FlagSet) {
	head := ".SH OPTIONS\n"
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Deprecated != "" {
			return
		}
		b.WriteString(head + ".TP\n")
		head = ""
		if f.Shorthand != "" {
			fmt.Fprintf(b, "\\fB\\-%s\\fR, ", f.Shorthand)
		}
		kind, usage := pflag.UnquoteUsage(f)
		if kind != "" {
			kind = ` \fI` + roff(kind) + `\fR`
		}
		fmt.Fprintf(b, "\\fB\\-\\-%s\\fR%s\n%s", roff(f.Name), kind, roff(usage))
		if value := f.DefValue; !slices.Contains([]string{"", "0", "0s", "0.000", "false", "[]", "none"}, value) && !strings.Contains(usage, "(default ") {
			if m.home != "" && m.home != "/" && strings.HasPrefix(value, m.home+"/") {
				value = "~" + strings.TrimPrefix(value, m.home)
			}
			fmt.Fprintf(b, " (default %s)", roff(value))
		}
		b.WriteByte('\n')
	})
}

// paragraphs has lines that are indented stand as they are, and others filled.
func paragraphs(text string) string {
	var b strings.Builder
	asIs := false
	for line := range strings.Lines(strings.TrimSpace(text)) {
		line = strings.TrimRight(line, "\n")
		indented := strings.HasPrefix(line, " ") || strings.HasPrefix(line, "\t")
		switch {
		case line == "" && asIs:
			b.WriteString(".sp\n")
			continue
		case line == "":
			b.WriteString(".PP\n")
			continue
		case indented && !asIs:
			b.WriteString(".nf\n")
		case !indented && asIs:
			b.WriteString(".fi\n")
		}
		asIs = indented
		b.WriteString(roff(line) + "\n")
	}
	if asIs {
		b.WriteString(".fi\n")
	}
	return strings.TrimRight(b.String(), "\n")
}

// roff has troff take a text as it is: no line of it is a command, and nothing in it an escape.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(text)
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
			lines[i] = `\&` + line
		}
	}
	return strings.Join(lines, "\n")
}
