package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	"github.com/docker/docker/client"
	"github.com/spf13/cobra"

	"skep/cluster"
)

func newClusterAuditCommand(dockerCLI command.Cli) *cobra.Command {
	var asJSON, follow bool
	cmd := &cobra.Command{
		Use:   "audit [OPTIONS]",
		Short: "Tell who changed what: the last requests that managers were asked",
		Long: `Tell who changed what: the last requests that managers were asked to change something, to
show tokens or the unlock key, or to run a command in a task's container, and what came of
them; also those that were refused.

Each manager keeps the last 1,000 of its own in memory; "skep daemon --audit-file" has all of
them in a file. The one that is asked puts together what all tell. Times are by their clocks.`,
		Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f := auditFollower{out: dockerCLI.Out(), complain: dockerCLI.Err(), asJSON: asJSON, told: map[string]uint64{}, missing: map[string]bool{}}
			log, err := fetchAudit(cmd.Context(), dockerCLI.Client())
			if err != nil {
				return err
			}
			if err := f.tell(log); err != nil || !follow {
				return err
			}
			said := ""
			for cluster.Sleep(cmd.Context(), followEvery) {
				log, err := fetchAudit(cmd.Context(), dockerCLI.Client())
				switch {
				case err == nil:
					said = ""
					if err := f.tell(log); err != nil {
						return err
					}
				case cmd.Context().Err() == nil && err.Error() != said:
					said = err.Error()
					fmt.Fprintln(dockerCLI.Err(), said)
				}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "Print the records, one in a line")
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "Go on with what is asked")
	return cmd
}

func fetchAudit(ctx context.Context, c client.APIClient) (log cluster.AuditLog, err error) {
	return log, ask(ctx, c, http.MethodGet, "audit", nil, &log)
}

// auditFollower prints what wasn't printed yet.
type auditFollower struct {
	out, complain io.Writer
	asJSON        bool
	told          map[string]uint64 // the last number of each manager
	missing       map[string]bool
}

func (f *auditFollower) tell(log cluster.AuditLog) error {
	for _, r := range log.Records {
		if last, any := f.told[r.Manager]; any && r.Seq <= last {
			continue
		}
		f.told[r.Manager] = r.Seq
		var err error
		if f.asJSON {
			err = json.NewEncoder(f.out).Encode(r)
		} else {
			_, err = fmt.Fprintln(f.out, auditLine(r))
		}
		if err != nil {
			return err
		}
	}
	now := map[string]bool{}
	for _, name := range log.Missing {
		if now[name] = true; !f.missing[name] {
			fmt.Fprintf(f.complain, "Manager %s doesn't tell what it was asked.\n", name)
		}
	}
	f.missing = now
	return nil
}

// auditLine is a record in one line.
func auditLine(r cluster.Audited) string {
	who := r.By
	if r.User != "" {
		who = fmt.Sprintf("%s (%s, pid %d)", r.User, r.By, r.PID)
	}
	line := fmt.Sprintf("%s  %s  %s", r.Time.Local().Format(time.DateTime), who, r.Route)
	var parts []string
	for _, o := range r.Objects {
		if o.From == 0 && o.To == 0 { // It has no versions, as a join token.
			parts = append(parts, o.Kind+" "+cmp.Or(o.Name, o.ID))
			continue
		}
		parts = append(parts, fmt.Sprintf("%s %s %s→%s", o.Kind, cmp.Or(o.Name, o.ID), versionOr(o.From, "new"), versionOr(o.To, "gone")))
	}
	if len(parts) == 0 && r.Ref != "" {
		parts = []string{r.Ref}
	}
	if len(parts) > 0 {
		line += "  " + strings.Join(parts, ", ")
	}
	return fmt.Sprintf("%s  %s (%d)", line, r.Result, r.Status)
}

func versionOr(version uint64, none string) string {
	if version == 0 {
		return none
	}
	return fmt.Sprint(version)
}
