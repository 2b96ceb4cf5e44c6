// Package checksums judges signed lists of checksums, as clients are published with them, and then the files that
// they name.
package checksums

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/nodetrust/nodetrust/internal/bounded"
	"github.com/nodetrust/nodetrust/internal/openpgp"
	"github.com/nodetrust/nodetrust/internal/verdict"
	"github.com/nodetrust/nodetrust/internal/verify/mechanism"
)

// MaxSize bounds a checksum file and its signature, in bytes, compressed or not.
const MaxSize = openpgp.MaxMessage

// List is a signed list of checksums, and where the files are that it names.
type List struct {
	// Signature is a clear-signed or otherwise signed message with the list inside, binary or armored, or a detached
	// signature of Text: see openpgp.IsDetached.
	Signature []byte
	Text      []byte
	// Keys are the contents of key files; one key of them must have signed.
	Keys [][]byte
	// Dir is where the files are: none outside of it is opened, not through a symbolic link either.
	Dir *os.Root
	// IgnoreMissing leaves files out that aren't there; at least one must be.
	IgnoreMissing bool
	// Progress, unless nil, is told how many bytes of all files have been read, and of how many.
	Progress func(name string, done, total int64)
}

// Result is the answer on a signed list of checksums and on the files that it names. Accept means: one of the keys
// signed the list, and every file in Files has the signed content.
type Result struct {
	verdict.Outcome
	// Signer is a full fingerprint, or a 16-digit key ID where only that is known: a claim, unless Files are there.
	Signer string `json:"signer"`
	// Files are in the order of the list. There are none if the list itself wasn't accepted: nothing is read then.
	Files []File `json:"files"`
}

// File is the answer on one file.
type File struct {
	Name string `json:"name"`
	verdict.Outcome
	// Want and Got are digests ("sha256:…"): what was signed, and what the file has, "" if it couldn't be read.
	Want string `json:"want"`
	Got  string `json:"got"`

	size int64
}

// Verify judges a signed list of checksums and then the files that it names. The signature comes first: names of a
// list that nobody signed are not used. A file with another hash is a refusal (WrongDigest). A file that isn't there,
// or can't be read, is unknown (FileMissing): nothing is known against it, and nothing for it; an incomplete download
// is not a forgery, and must not be taken for a complete one either. A list with names that point out of the
// directory is refused as a whole, whoever signed it. An error means that the input is too large or no signature at
// all.
func Verify(ctx context.Context, f List) (Result, error) {
	c := Result{Files: []File{}}
	if len(f.Signature) > MaxSize || len(f.Text) > MaxSize {
		return c, fmt.Errorf("signature or list are larger than %d bytes", MaxSize)
	}
	messages, textMode, err := openpgp.SignedMessages(f.Signature, f.Text)
	if err != nil {
		return c, err
	}
	var content []byte
	for _, m := range messages {
		if content = c.signature(ctx, m, f.Keys, textMode); c.Answer == verdict.Accept {
			break
		}
	}
	if c.Answer != verdict.Accept {
		return c, nil
	}
	list, err := parse(content)
	if err != nil {
		c.set(verdict.Refuse, verdict.WeakOrUnsupported, "well signed, but no list of checksums: %v", err)
		return c, nil
	}
	c.check(ctx, f, list)
	return c, nil
}

func (c *Result) set(a verdict.Answer, r verdict.Reason, format string, args ...any) {
	c.Answer, c.Reason, c.Message = a, r, fmt.Sprintf(format, args...)
}

// signature judges one signed message and returns what was signed.
func (c *Result) signature(ctx context.Context, message []byte, files [][]byte, textMode bool) []byte {
	claims := openpgp.ReadClaims(message)
	keys, err := mechanism.Keys(files)
	primary, known := keys.ByID[claims.Signer]
	c.Signer = claims.Signer
	if known {
		c.Signer = primary
	}
	if len(keys.Primary) == 0 {
		c.set(verdict.Refuse, verdict.KeyUnreadable, "no public key inside the key files")
		if err != nil {
			c.set(verdict.Unknown, verdict.MechanismCannotTell, "what the key files hold can't be told: %s", mechanism.Text(err))
		}
		return nil
	}
	content, _, err := mechanism.Verify(ctx, message, files, keys)
	if err == nil {
		if !known && len(keys.Primary) == 1 {
			c.Signer = keys.Primary[0]
		}
		c.set(verdict.Accept, "", "signed by %s", c.Signer)
		return content
	}
	a, reason := mechanism.Reason(err, claims, keys)
	if textMode && reason == verdict.WrongKey && known {
		// Implementations differ in which white space of a text is signed.
		a, reason = verdict.Unknown, verdict.MechanismCannotTell
	}
	switch reason {
	case verdict.WrongKey:
		c.set(a, reason, "signed by key %s, which is none of those given", cmp.Or(c.Signer, "(not said)"))
		if known {
			c.set(a, reason, "the signature names key %s but does not verify with it: list or signature were altered", c.Signer)
		}
	case verdict.KeyExpired, verdict.SignatureExpired, verdict.KeyRevoked, verdict.MechanismCannotTell:
		c.set(a, reason, "%s", mechanism.Signature{Claims: claims, Signer: c.Signer, Keys: keys}.Explain(reason, err))
	default:
		c.set(a, reason, "no usable signature: %s", mechanism.Text(err))
	}
	return nil
}

// check reads the files of a list that was accepted.
func (c *Result) check(ctx context.Context, f List, list []File) {
	var total, done int64
	for _, file := range list {
		if st, err := f.Dir.Stat(file.Name); err == nil && st.Mode().IsRegular() {
			file.size = st.Size()
			total += st.Size()
		} else if f.IgnoreMissing && errors.Is(err, os.ErrNotExist) {
			continue
		}
		c.Files = append(c.Files, file)
	}
	if len(c.Files) == 0 {
		c.set(verdict.Unknown, verdict.FileMissing, "none of the %d files in the list is there", len(list))
		return
	}
	count := map[verdict.Answer]int{}
	for i := range c.Files {
		file := &c.Files[i]
		read := func(n int) {
			done += int64(n)
			if f.Progress != nil {
				f.Progress(file.Name, min(done, total), total)
			}
		}
		file.check(ctx, f.Dir, read)
		count[file.Answer]++
	}
	first := c.Files[verdict.Worst(c.Files, func(f File) verdict.Answer { return f.Answer })]
	switch first.Answer {
	case verdict.Refuse:
		c.set(verdict.Refuse, verdict.WrongDigest, "%d of %d files are not what was signed, first %s",
			count[verdict.Refuse], len(c.Files), first.Name)
	case verdict.Unknown:
		c.set(verdict.Unknown, first.Reason, "%d of %d files could not be checked, first %s: %s",
			count[verdict.Unknown], len(c.Files), first.Name, first.Message)
	default:
		c.set(verdict.Accept, "", "%d files are as signed by %s", len(c.Files), c.Signer)
	}
}

// check reads the file and compares.
func (f *File) check(ctx context.Context, dir *os.Root, read func(n int)) {
	algorithm, _, _ := strings.Cut(f.Want, ":")
	sum, err := hashFile(ctx, dir, f.Name, algorithm, read)
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		f.Answer, f.Reason, f.Message = verdict.Unknown, verdict.Timeout, "interrupted"
	case errors.Is(err, os.ErrNotExist):
		f.Answer, f.Reason, f.Message = verdict.Unknown, verdict.FileMissing, "the file is not there"
	case err != nil:
		f.Answer, f.Reason, f.Message = verdict.Unknown, verdict.FileMissing, err.Error()
	default:
		f.Got = algorithm + ":" + sum
		f.Answer, f.Message = verdict.Accept, "as signed"
		if f.Got != f.Want {
			f.Answer, f.Reason, f.Message = verdict.Refuse, verdict.WrongDigest, "not what was signed: it has "+f.Got
		}
	}
}

func hashFile(ctx context.Context, dir *os.Root, name, algorithm string, read func(n int)) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	in, err := bounded.OpenRegular(dir.OpenFile, name)
	if err != nil {
		return "", err
	}
	defer in.Close()
	h := hashes()[algorithm]
	buf := make([]byte, 1<<20)
	for {
		n, err := in.Read(buf)
		h.Write(buf[:n])
		read(n)
		switch {
		case err == io.EOF:
			return hex.EncodeToString(h.Sum(nil)), nil
		case err != nil:
			return "", err
		}
		if err := ctx.Err(); err != nil {
			return "", err
		}
	}
}

// hashes are the accepted algorithms; shorter ones can be forged.
func hashes() map[string]hash.Hash {
	return map[string]hash.Hash{"sha256": sha256.New(), "sha384": sha512.New384(), "sha512": sha512.New()}
}

// parse reads the lines of sha256sum (also with --tag), sha384sum or sha512sum. Each name is below the
// directory, and named once.
func parse(text []byte) ([]File, error) {
	gnu := regexp.MustCompile(`^([0-9a-fA-F]{8,}) [ *](.+)$`)
	bsd := regexp.MustCompile(`^([A-Z0-9]+) \((.+)\) = ([0-9a-fA-F]{8,})$`)
	var list []File
	seen := map[string]string{}
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, MaxSize+1)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimRight(lines.Text(), "\r")
		if line == "" || line[0] == '#' {
			continue
		}
		var name, sum, tag string
		if m := gnu.FindStringSubmatch(line); m != nil {
			sum, name = m[1], m[2]
		} else if m := bsd.FindStringSubmatch(line); m != nil {
			tag, name, sum = m[1], m[2], m[3]
		} else {
			return nil, fmt.Errorf("line %d is not that of a checksum", n)
		}
		algorithm := map[int]string{64: "sha256", 96: "sha384", 128: "sha512"}[len(sum)]
		if algorithm == "" || tag != "" && !strings.EqualFold(tag, algorithm) {
			return nil, fmt.Errorf("line %d: neither SHA-256, SHA-384 nor SHA-512", n)
		}
		if !filepath.IsLocal(name) || strings.ContainsAny(name, "\\\x00") {
			return nil, fmt.Errorf("line %d: name %q points out of the directory, or has a backslash", n, name)
		}
		want := algorithm + ":" + strings.ToLower(sum)
		clean := filepath.Clean(name)
		if before, ok := seen[clean]; ok {
			if before != want {
				return nil, fmt.Errorf("line %d: %q is there twice, with different checksums", n, name)
			}
			continue
		}
		seen[clean] = want
		list = append(list, File{Name: name, Want: want})
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, errors.New("it names no file")
	}
	return list, nil
}
