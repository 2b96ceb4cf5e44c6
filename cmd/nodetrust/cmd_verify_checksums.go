package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/nodetrust/nodetrust/internal/bounded"
	"github.com/nodetrust/nodetrust/internal/openpgp"
	"github.com/nodetrust/nodetrust/internal/outside"
	"github.com/nodetrust/nodetrust/internal/trust"
	"github.com/nodetrust/nodetrust/internal/verify"
	"github.com/nodetrust/nodetrust/internal/verify/checksums"
)

func newVerifyChecksumsCommand() *cobra.Command {
	var out outputFlag
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
			verify.Isolate()
			f := checksums.List{IgnoreMissing: ignoreMissing}
			if len(keys) == 0 {
				return usagef("--key is missing")
			}
			var err error
			if f.Signature, err = bounded.ReadFile(args[0], checksums.MaxSize); err != nil {
				return usageErr(fmt.Errorf("reading signature: %w", err))
			}
			if f.Keys, err = readKeys(keys); err != nil {
				return err
			}
			if openpgp.IsDetached(f.Signature) {
				if list == "" {
					if list = signedFile(args[0]); list == "" {
						return usagef("%s is a detached signature, and its name ends in neither .sig, .gpg nor .asc: name the list with --list", args[0])
					}
				}
				if f.Text, err = bounded.ReadFile(list, checksums.MaxSize); err != nil {
					return usageErr(fmt.Errorf("reading the signed list: %w", err))
				}
			} else if list != "" {
				return usagef("--list goes with a detached signature; %s holds the list itself", args[0])
			}
			if dir == "" {
				dir = filepath.Dir(args[0])
			}
			if f.Dir, err = os.OpenRoot(dir); err != nil {
				return usageErr(fmt.Errorf("reading --dir: %w", err))
			}
			defer f.Dir.Close()
			bar := newBar(cmd.ErrOrStderr())
			f.Progress = bar.show
			c, err := checksums.Verify(cmd.Context(), f)
			bar.clear()
			if err != nil {
				return usageErr(fmt.Errorf("%s: %w", args[0], err))
			}
			if err := write(out, cmd.OutOrStdout(), c,
				func(w io.Writer, c checksums.Result) error { return writeChecksums(w, args[0], c) }); err != nil {
				return err
			}
			return silent(verdictExit(c.Answer))
		},
	}
	out.add(cmd)
	fl := cmd.Flags()
	fl.StringArrayVar(&keys, "key", nil, "public key `FILE`, one of which must have signed (repeatable)")
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
			return nil, usageErr(fmt.Errorf("reading key: %w", err))
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

func writeChecksums(w io.Writer, file string, c checksums.Result) error {
	if err := writeOutcome(w, file, c.Outcome); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(w, "  signer:    %s\n", c.Signer); err != nil {
		return err
	}
	for _, f := range c.Files {
		if _, err := fmt.Fprintf(w, "  %-7s %q: %s\n", f.Answer, f.Name, f.Message); err != nil {
			return err
		}
	}
	return nil
}

// bar shows progress on a terminal, and nothing anywhere else.
type bar struct {
	w    io.Writer // nil: no terminal
	next time.Time
}

func newBar(w io.Writer) *bar {
	if f, ok := terminalOf(w); ok {
		return &bar{w: outside.NewWriter(f, barControls...), next: time.Now().Add(200 * time.Millisecond)}
	}
	return &bar{}
}

func (b *bar) show(_ string, done, total int64) {
	if b.w == nil || total == 0 || time.Now().Before(b.next) {
		return
	}
	b.next = time.Now().Add(100 * time.Millisecond)
	const width = 30
	full := int(done * width / total)
	fmt.Fprintf(b.w, "\r[%-*s] %3d %% of %d MiB"+clearLine, width, "##############################"[:full],
		done*100/total, total>>20)
}

func (b *bar) clear() {
	if b.w != nil {
		fmt.Fprint(b.w, "\r"+clearLine)
	}
}
