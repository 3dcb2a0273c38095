package main

import (
	_ "embed"
	"io"

	"github.com/docker/cli/cli"
	"github.com/spf13/cobra"

	"skep/cmd/skep/up"
)

// serviceUnit is systemd's unit of the daemon.
//
//go:embed skep.service
var serviceUnit string

func newUnitCommand() *cobra.Command {
	var mark bool
	cmd := &cobra.Command{
		Use:   "unit",
		Short: "Print systemd's unit of the daemon",
		Long: `Print systemd's unit of the daemon:

  skep unit >/etc/systemd/system/skep.service && systemctl enable --now skep`,
		Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			text := serviceUnit
			if mark {
				text = up.UnitMark + text
			}
			_, err := io.WriteString(cmd.OutOrStdout(), text)
			return err
		},
	}
	cmd.Flags().BoolVar(&mark, "mark", false, `Begin with the line by which "skep up" knows that it may replace it`)
	return cmd
}
