package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"

	"filippo.io/age"
	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	"github.com/docker/docker/api/types/swarm"
	"github.com/spf13/cobra"

	"skep/cluster"
)

const (
	// leastPassphrase is how short a passphrase may be: each guess costs an attacker
	// a second and 256 MiB, so a few words will do, and one won't.
	leastPassphrase = 12
	// mostPassphrase bounds what is read: a file that is no passphrase is given by mistake.
	mostPassphrase = 4096
	// mostWork bounds what a file can ask for before its passphrase is known to be right:
	// 1 GiB, four times what age asks for.
	mostWork = 20
	// mostHeader bounds what is read of a file that may be none of age's.
	mostHeader = 64 << 10
)

// readPassphrase reads it from a file, or from in when path is "-". The end of its
// line isn't part of it.
func readPassphrase(path string, in io.Reader) ([]byte, error) {
	if path == "" {
		return nil, errors.New("--passphrase-file is missing: name a file with the passphrase that seals the backup, or - for standard input")
	}
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("read passphrase: %w", err)
		}
		defer file.Close()
		in = file
	}
	text, err := io.ReadAll(io.LimitReader(in, mostPassphrase+1))
	if err != nil {
		return nil, fmt.Errorf("read passphrase: %w", err)
	}
	text = bytes.TrimRight(text, "\r\n")
	switch {
	case len(text) > mostPassphrase:
		return nil, fmt.Errorf("read passphrase: it has more than %d bytes", mostPassphrase)
	case bytes.ContainsAny(text, "\r\n"): // The age tool asks for a line.
		return nil, errors.New("read passphrase: it has more than one line")
	case len(text) < leastPassphrase:
		return nil, fmt.Errorf("read passphrase: it must have at least %d characters", leastPassphrase)
	}
	return text, nil
}

func newClusterBackupCommand(dockerCLI command.Cli) *cobra.Command {
	var passphraseFile string
	cmd := &cobra.Command{
		Use:   "backup [OPTIONS] FILE",
		Short: "Write the cluster's whole database to a file, sealed under a passphrase",
		Long: `Write the cluster's whole database to a file, sealed under a passphrase.

It has everything that a manager knows: services, tasks, nodes, join tokens, the key
of the cluster's CA, and all that was acknowledged before. So it takes a leader. "skep
cluster restore" makes a cluster of it again.

The file is one of the age tool (age-encryption.org): "age -d FILE" asks for the passphrase
and writes what is in it, a CBOR sequence (RFC 8742).`,
		Args: cli.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			passphrase, err := readPassphrase(passphraseFile, dockerCLI.In())
			if err != nil {
				return err
			}
			size, err := backUp(cmd.Context(), dockerCLI, args[0], passphrase)
			if err != nil {
				return err
			}
			fmt.Fprintf(dockerCLI.Out(), "%s: %d bytes\n", args[0], size)
			return nil
		},
	}
	cmd.Flags().StringVar(&passphraseFile, "passphrase-file", "", "File with the passphrase, or - for standard input")
	return cmd
}

// backUp writes the file whole or not at all, and never over another one. The daemon
// encrypts the database for a key that only this process has, and for this once, so
// that it needn't be told the passphrase, nor spend what age makes each use of one cost.
func backUp(ctx context.Context, dockerCLI command.Cli, path string, passphrase []byte) (size int64, err error) {
	once, err := age.GenerateX25519Identity()
	if err != nil {
		return 0, err
	}
	recipient, err := age.NewScryptRecipient(string(passphrase))
	if err != nil {
		return 0, err
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return 0, fmt.Errorf("write backup: %w", err)
	}
	defer func() {
		if err = errors.Join(err, file.Close()); err != nil {
			err = errors.Join(err, os.Remove(path))
		}
	}()
	resp, err := open(ctx, dockerCLI.Client(), http.MethodPost, "backup", cluster.BackupRequest{Recipient: once.Recipient().String()})
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	plain, err := age.Decrypt(resp.Body, once)
	if err != nil {
		return 0, fmt.Errorf("read backup from %s: %w", dockerCLI.Client().DaemonHost(), err)
	}
	sealed, err := age.Encrypt(file, recipient)
	if err != nil {
		return 0, fmt.Errorf("write backup: %w", err)
	}
	if _, err := io.Copy(sealed, plain); err != nil {
		return 0, fmt.Errorf("read backup from %s: %w", dockerCLI.Client().DaemonHost(), err)
	}
	if err := errors.Join(sealed.Close(), file.Sync()); err != nil {
		return 0, fmt.Errorf("write backup: %w", err)
	}
	info, err := file.Stat()
	if err != nil {
		return 0, fmt.Errorf("write backup: %w", err)
	}
	return info.Size(), nil
}

func newClusterRestoreCommand(dockerCLI command.Cli) *cobra.Command {
	var passphraseFile, availability string
	var request cluster.RestoreRequest
	cmd := &cobra.Command{
		Use:   "restore [OPTIONS] FILE",
		Short: "Make this node the first manager of the cluster that a backup is of",
		Long: `Make this node the first manager of the cluster that a backup is of.

For when all managers are lost. The node must be in no cluster, and the file on its
machine. Workers that are left find the new manager if it has the address that one of
the lost ones had; others leave and join again. All that came after the backup is
lost, and what runs and isn't in it is stopped. Never do it while an old manager
lives: there would be two clusters with one name.`,
		Args: cli.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			passphrase, err := readPassphrase(passphraseFile, dockerCLI.In())
			if err != nil {
				return err
			}
			if request.Key, err = fileKey(args[0], passphrase); err != nil {
				return err
			}
			if request.Path, err = filepath.Abs(args[0]); err != nil {
				return err
			}
			request.Availability = swarm.NodeAvailability(availability)
			var id string
			if err := ask(cmd.Context(), dockerCLI.Client(), http.MethodPost, "restore", request, &id); err != nil {
				return err
			}
			fmt.Fprintf(dockerCLI.Out(), "Cluster restored: current node (%s) is now its only manager.\n"+
				"Look at it with \"skep node ls\", and add managers with the token of \"skep swarm join-token manager\".\n", id)
			return nil
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&passphraseFile, "passphrase-file", "", "File with the passphrase, or - for standard input")
	fs.StringVar(&request.AdvertiseAddr, "advertise-addr", "", "Address other nodes reach this one at (ADDRESS|INTERFACE[:PORT])")
	fs.StringVar(&request.ListenAddr, "listen-addr", "", "Address to listen at for other nodes (ADDRESS|INTERFACE[:PORT], default the advertised one)")
	fs.StringVar(&availability, "availability", "active", `Availability of this node ("active", "pause", "drain")`)
	return cmd
}

// fileKey opens a backup's header: the key in it is what the daemon reads the rest with.
func fileKey(path string, passphrase []byte) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read backup: %w", err)
	}
	defer file.Close()
	header, err := age.ExtractHeader(io.LimitReader(file, mostHeader))
	if err != nil {
		return nil, fmt.Errorf("read backup %s: it isn't a backup of skep: %w", path, err)
	}
	identity, err := age.NewScryptIdentity(string(passphrase))
	if err != nil {
		return nil, err
	}
	identity.SetMaxWorkFactor(mostWork)
	key, err := age.DecryptHeader(header, identity)
	if err != nil {
		return nil, fmt.Errorf("read backup %s: the passphrase is wrong, or the file is damaged: %w", path, err)
	}
	return key, nil
}
