package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/nodetrust/nodetrust/internal/bounded"
	"github.com/nodetrust/nodetrust/internal/cli"
	"github.com/nodetrust/nodetrust/internal/openpgp"
	"github.com/nodetrust/nodetrust/internal/trust"
	"github.com/nodetrust/nodetrust/internal/verify/checksums"
)

func newVerifyChecksumsCommand() *cobra.Command {
	var out cli.Format
	var keys []string
	var dir, list string
	var ignoreMissing bool
	cmd := &cobra.Command{
		Use:   "verify-checksums --key FILE [--dir DIR] SIGNATURE",
		Short: "Judge a signed list of checksums, and the files it names",
		Long: `Judges a signed list of checksums as sha256sum writes it, for example that of a distribution's client binaries, and then
the files in it. SIGNATURE is the list itself, clear-signed or as a signed message, or a detached signature of the list, which
then is the file of the same name without .sig, .gpg or .asc.

If none of the keys made the signature, no file is looked at. A file with another checksum than the signed one is a refusal. A
file that is not there is unknown: an incomplete download is neither wrong nor right. With --ignore-missing such files are left
out, and one must be there. SHA-256, SHA-384 and SHA-512 count; a list with names outside of DIR is refused.`,
		Example: "  nodetrust verify-checksums --key RPM-GPG-KEY-redhat-release sha256sum.txt.gpg\n" +
			"  nodetrust verify-checksums --key corp.asc --dir downloads --ignore-missing sha256sum.txt.sig",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f := checksums.List{IgnoreMissing: ignoreMissing}
			if len(keys) == 0 {
				return cli.Usagef("--key is missing")
			}
			var err error
			if f.Signature, err = bounded.ReadFile(args[0], checksums.MaxSize); err != nil {
				return cli.Usage(fmt.Errorf("reading signature: %w", err))
			}
			if f.Keys, err = readKeys(keys); err != nil {
				return err
			}
			if openpgp.IsDetached(f.Signature) {
				if list == "" {
					if list = signedFile(args[0]); list == "" {
						return cli.Usagef("%s is a detached signature, and its name ends in neither .sig, .gpg nor .asc: name the list with --list", args[0])
					}
				}
				if f.Text, err = bounded.ReadFile(list, checksums.MaxSize); err != nil {
					return cli.Usage(fmt.Errorf("reading the signed list: %w", err))
				}
			} else if list != "" {
				return cli.Usagef("--list goes with a detached signature; %s holds the list itself", args[0])
			}
			if dir == "" {
				dir = filepath.Dir(args[0])
			}
			if f.Dir, err = os.OpenRoot(dir); err != nil {
				return cli.Usage(fmt.Errorf("reading --dir: %w", err))
			}
			defer f.Dir.Close()
			bar := cli.NewBar(cmd.ErrOrStderr())
			f.Progress = func(_ string, done, total int64) { showBytes(bar, done, total) }
			c, err := checksums.Verify(cmd.Context(), f)
			bar.Clear()
			if err != nil {
				return cli.Usage(fmt.Errorf("%s: %w", args[0], err))
			}
			return cli.Finish(out, cmd.OutOrStdout(), c,
				func(w *cli.Screen, c checksums.Result) { writeChecksums(w, args[0], c) }, verdictExit(c.Answer))
		},
	}
	out.Add(cmd)
	fl := cmd.Flags()
	addKeys(cmd, &keys, "one of which")
	fl.StringVar(&dir, "dir", "", "`DIR` with the files (default that of SIGNATURE)")
	fl.StringVar(&list, "list", "", "the list `FILE` of a detached signature (default SIGNATURE without .sig, .gpg or .asc)")
	fl.BoolVar(&ignoreMissing, "ignore-missing", false, "leave out files that are not there")
	return cmd
}

// readKeys reads public key files.
func readKeys(paths []string) (files [][]byte, err error) {
	for _, path := range paths {
		b, err := bounded.ReadFile(path, trust.MaxKeyFile)
		if err != nil {
			return nil, cli.Usage(fmt.Errorf("reading key: %w", err))
		}
		files = append(files, b)
	}
	return files, nil
}

// signedFile is the file that a detached signature of this name is for; "" if the name doesn't tell.
func signedFile(signature string) string {
	ext := filepath.Ext(signature)
	if !slices.Contains([]string{".sig", ".gpg", ".asc"}, ext) {
		return ""
	}
	return signature[:len(signature)-len(ext)]
}

func writeChecksums(w *cli.Screen, file string, c checksums.Result) {
	writeOutcome(w, file, c.Outcome)
	fmt.Fprintf(w, "  signer:    %s\n", c.Signer)
	for _, f := range c.Files {
		fmt.Fprintf(w, "  %-7s %q: %s\n", f.Answer, f.Name, f.Message)
	}
}

// showBytes shows how much of a file was read.
func showBytes(bar *cli.Bar, done, total int64) {
	if total > 0 {
		bar.Show(func(time.Duration) string {
			return fmt.Sprintf("%s %3d %% of %d MiB", cli.Meter(30, done, total), done*100/total, total>>20)
		})
	}
}
