package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	"github.com/docker/docker/api/types/swarm"
	"github.com/spf13/cobra"
	"golang.org/x/crypto/argon2"

	"skep/cluster"
)

// backupHeader begins a backup; what follows is sealed under the key that the
// passphrase gives with this salt. It is written as it is, big endian.
type backupHeader struct {
	Magic  [8]byte
	Format uint16
	Salt   [16]byte
}

var backupMagic = [8]byte{'s', 'k', 'e', 'p', 'b', 'a', 'c', 'k'}

const (
	backupFormat = 1
	// leastPassphrase is how short a passphrase may be: each guess costs an attacker
	// a tenth of a second and 64 MiB, so a few words will do, and one won't.
	leastPassphrase = 12
	// mostPassphrase bounds what is read: a file that is no passphrase is given by mistake.
	mostPassphrase = 4096
)

// key makes the key out of a passphrase, by Argon2id as RFC 9106 recommends it for
// machines with little memory, fixed for this format.
func (h *backupHeader) key(passphrase []byte) []byte {
	return argon2.IDKey(passphrase, h.Salt[:], 3, 64<<10, 4, 32)
}

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
cluster restore" makes a cluster of it again.`,
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

// backUp writes the file whole or not at all, and never over another one.
func backUp(ctx context.Context, dockerCLI command.Cli, path string, passphrase []byte) (size int64, err error) {
	header := backupHeader{Magic: backupMagic, Format: backupFormat}
	if _, err := rand.Read(header.Salt[:]); err != nil {
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
	if err := binary.Write(file, binary.BigEndian, header); err != nil {
		return 0, fmt.Errorf("write backup: %w", err)
	}
	resp, err := open(ctx, dockerCLI.Client(), http.MethodPost, "backup", cluster.BackupRequest{Key: header.key(passphrase)})
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	size, err = io.Copy(file, resp.Body)
	if err != nil {
		return 0, fmt.Errorf("read backup from %s: %w", dockerCLI.Client().DaemonHost(), err)
	}
	if err := file.Sync(); err != nil {
		return 0, fmt.Errorf("write backup: %w", err)
	}
	return size + int64(binary.Size(header)), nil
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
			header, err := readBackupHeader(args[0])
			if err != nil {
				return err
			}
			if request.Path, err = filepath.Abs(args[0]); err != nil {
				return err
			}
			request.Offset, request.Key = int64(binary.Size(header)), header.key(passphrase)
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

func readBackupHeader(path string) (*backupHeader, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read backup: %w", err)
	}
	defer file.Close()
	header := new(backupHeader)
	if err := binary.Read(file, binary.BigEndian, header); err != nil || header.Magic != backupMagic {
		return nil, fmt.Errorf("read backup %s: it isn't a backup of skep", path)
	}
	if header.Format != backupFormat {
		return nil, fmt.Errorf("read backup %s: its format is %d, this version knows %d: use the version that made it", path, header.Format, backupFormat)
	}
	return header, nil
}
