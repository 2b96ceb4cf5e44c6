package desired

import (
	"errors"
	"fmt"
	"path"
	"reflect"
	"strings"

	"github.com/coreos/ignition/v2/config"
	"github.com/coreos/ignition/v2/config/v3_7_experimental/types"
	"github.com/coreos/vcontext/report"
	"github.com/vincent-petithory/dataurl"

	"github.com/nodetrust/nodetrust/internal/bounded"
	"github.com/nodetrust/nodetrust/internal/trust"
)

// Extract reads any MachineConfig or Ignition config and returns the files below paths that keep wants, also those
// that Parse would refuse, and a MachineConfig's canaries if they are valid. It ignores the rest of the config. A file
// that the config appends to is an error: its content is unknown.
func Extract(data []byte, keep func(path string) bool) (*State, error) {
	if len(data) > maxInput {
		return nil, fmt.Errorf("is larger than %d bytes", maxInput)
	}
	data, err := toJSON(data)
	if err != nil {
		return nil, err
	}
	s := &State{}
	if isMachineConfig(data) {
		o, config, err := unwrap(data)
		if err != nil {
			return nil, err
		}
		s.Name, s.Pool, data = o.Metadata.Name, o.Metadata.Labels[RoleLabel], config
		if canaries, err := trust.ParseCanaries([]byte(o.Metadata.Annotations[CanariesAnnotation])); err == nil {
			s.Canaries = canaries
		}
	}
	cfg, rpt, err := config.Parse(data)
	if err != nil {
		return nil, fmt.Errorf("parsing Ignition config: %w%s", err, entries(rpt))
	}
	total := 0
	for _, f := range cfg.Storage.Files {
		if !keep(f.Path) {
			continue
		}
		g, err := file(f)
		if err != nil {
			return nil, fmt.Errorf("file %q: %w", f.Path, err)
		}
		if total += len(g.Data); total > maxTotal {
			return nil, fmt.Errorf("files are larger than %d bytes together", maxTotal)
		}
		s.Files = append(s.Files, g)
	}
	s.Files = s.Files.Sorted()
	return s, nil
}

// file takes a file as it is, mode and owner included; it does not resolve names of users.
func file(f types.File) (trust.File, error) {
	out := trust.File{Path: f.Path, Mode: 0o644}
	if f.Mode != nil {
		out.Mode = uint32(*f.Mode)
	}
	if f.User.ID != nil {
		out.UID = uint32(*f.User.ID)
	}
	if f.Group.ID != nil {
		out.GID = uint32(*f.Group.ID)
	}
	if len(f.Append) > 0 {
		return out, errors.New("append is not supported")
	}
	var err error
	out.Data, err = contents(f.Contents)
	return out, err
}

// ignition returns the files of an Ignition config of any version 3.x that holds nothing but files.
func ignition(data []byte) (trust.FileSet, error) {
	cfg, rpt, err := config.Parse(data)
	if err != nil {
		return nil, fmt.Errorf("parsing Ignition config: %w%s", err, entries(rpt))
	}
	if len(rpt.Entries) > 0 { // Ignition itself only warns of an unknown field
		return nil, fmt.Errorf("parsing Ignition config%s", entries(rpt))
	}
	files := cfg.Storage.Files
	rest := cfg
	rest.Ignition.Version, rest.Storage.Files = "", nil
	if !reflect.DeepEqual(rest, types.Config{}) {
		return nil, errors.New("holds more than files (storage.files), which only Ignition can apply")
	}
	if len(files) > maxFiles {
		return nil, fmt.Errorf("holds more than %d files", maxFiles)
	}
	var out trust.FileSet
	total := 0
	for _, f := range files {
		err := check(f)
		var g trust.File
		if err == nil {
			g, err = file(f)
		}
		if err != nil {
			return nil, fmt.Errorf("file %q: %w", f.Path, err)
		}
		if _, ok := out.Get(g.Path); ok {
			return nil, fmt.Errorf("file %q: is given twice", f.Path)
		}
		if total += len(g.Data); total > maxTotal {
			return nil, fmt.Errorf("files are larger than %d bytes together", maxTotal)
		}
		out = append(out, g)
	}
	if _, ok := out.Get(trust.PolicyPath); !ok {
		return nil, fmt.Errorf("lacks %s: it would enforce nothing", trust.PolicyPath)
	}
	return out.Sorted(), nil
}

func entries(r report.Report) string {
	var b strings.Builder
	for i, e := range r.Entries {
		if i == 10 {
			break
		}
		fmt.Fprintf(&b, ": %s", e.String())
	}
	return b.String()
}

// check returns why the agent must not write a file.
func check(f types.File) error {
	mode := 0o644
	if f.Mode != nil {
		mode = *f.Mode
	}
	switch {
	case !allowed(f.Path):
		return fmt.Errorf("nodetrust writes only %s, %s/*.yaml and key files in %s/", trust.PolicyPath, trust.RegistriesDir,
			keyDir)
	case mode < 0 || mode > 0o777:
		return fmt.Errorf("mode %#o has more than permission bits", mode)
	case mode&0o022 != 0:
		return fmt.Errorf("mode %#o lets others than root write", mode)
	case f.Overwrite != nil && !*f.Overwrite:
		return errors.New("has overwrite: false, but a file that is kept right is overwritten")
	case !owner(f.User.ID, f.User.Name) || !owner(f.Group.ID, f.Group.Name):
		return errors.New("must belong to user and group 0")
	}
	return nil
}

const (
	keyDir     = "/etc/pki/containers"
	noRebootPK = "/etc/machine-config-daemon/no-reboot/containers-gpg.pub"
)

// allowed reports whether a desired state may name the path. The agent writes as root: whoever may edit its ConfigMap
// must be able to change which images a node trusts, and nothing else. Even below /etc/containers, files of systemd/
// become services of root.
func allowed(p string) bool {
	if path.Clean(p) != p || strings.ContainsFunc(p, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return false
	}
	dir, base := path.Split(p)
	switch strings.TrimSuffix(dir, "/") {
	case trust.RegistriesDir:
		return strings.HasSuffix(base, ".yaml") && base[0] != '.'
	case keyDir:
		return base != "" && base[0] != '.'
	}
	return p == trust.PolicyPath || p == noRebootPK
}

func owner(id *int, name *string) bool {
	return (id == nil || *id == 0) && (name == nil || *name == "root")
}

func contents(r types.Resource) ([]byte, error) {
	switch {
	case r.Source == nil:
		return nil, errors.New("has no contents")
	case !strings.HasPrefix(*r.Source, "data:"):
		return nil, errors.New("contents must be a data URL: nothing is fetched")
	case r.Verification.Hash != nil:
		return nil, errors.New("verification is not supported, the contents are at hand")
	case len(r.HTTPHeaders) > 0:
		return nil, errors.New("HTTP headers are not supported")
	}
	u, err := dataurl.DecodeString(*r.Source)
	if err != nil {
		return nil, errors.New("contents are no valid data URL")
	}
	data := u.Data
	if r.Compression != nil && *r.Compression != "" {
		if *r.Compression != "gzip" {
			return nil, fmt.Errorf("compression %q is not supported", *r.Compression)
		}
		if data, err = bounded.Gunzip(data, maxFile); err != nil {
			return nil, err
		}
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("is larger than %d bytes", maxFile)
	}
	return data, nil
}

// Contents decodes the source of a file of any version of Ignition configs, which must be a data URL. Compression is ""
// or gzip.
func Contents(source, compression string) ([]byte, error) {
	return contents(types.Resource{Source: &source, Compression: &compression})
}
