// Package tamper does to a host's files what an agent must see: the one list for the tests on a single host and on
// the nodes of a cluster.
package tamper

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Host is a host with enforcement on.
type Host struct {
	// Root is where the test finds the host's files.
	Root string
	// Key is the path of the key file that the policy names, below Root.
	Key string
	// Rebind makes the host's programs see /etc/containers as it is now: a mount keeps the directory that was there first.
	Rebind func() error
}

// Tampering is one change to a host that the agent must see.
type Tampering struct {
	Name string
	// Path and Kind are the difference as the agent names it.
	Path, Kind string
	Do         func() error
	// Undo takes back what isn't the agent's to heal. Where it is nil, the agent must heal.
	Undo func() error

	root string
	want []byte // of the file at Path, where the agent heals
}

// AcceptAnything is a policy.
const AcceptAnything = `{"default":[{"type":"insecureAcceptAnything"}]}`

const (
	containers = "/etc/containers"
	policy     = containers + "/policy.json"
)

// Tamperings are all tamperings for a host whose files are as desired now, with one file in registries.d.
func Tamperings(h Host) ([]Tampering, error) {
	at := func(path string) string { return filepath.Join(h.Root, path) }
	found, err := filepath.Glob(at(containers + "/registries.d/*.yaml"))
	if err != nil {
		return nil, err
	}
	if len(found) != 1 {
		return nil, fmt.Errorf("registries.d holds %q, want one file", found)
	}
	lookasides := containers + "/registries.d/" + filepath.Base(found[0])
	scopes, err := os.ReadFile(found[0])
	if err != nil {
		return nil, err
	}
	key, err := os.ReadFile(at(h.Key))
	if err != nil {
		return nil, err
	}
	write := func(path, text string) error {
		return errors.Join(os.MkdirAll(filepath.Dir(at(path)), 0o755), os.WriteFile(at(path), []byte(text), 0o644))
	}
	// rename puts something in the place of a file in one step, once made has made it beside the file.
	rename := func(path string, made func(string) error) error {
		return errors.Join(made(at(path)+".new"), os.Rename(at(path)+".new", at(path)))
	}
	loose := func(path string) error { return os.WriteFile(path, []byte(AcceptAnything), 0o644) }

	tamperings := []Tampering{
		{
			Name: "policy.json overwritten in place", Path: policy, Kind: "content",
			Do: func() error { return write(policy, AcceptAnything) },
		},
		{Name: "policy.json emptied", Path: policy, Kind: "content", Do: func() error { return os.Truncate(at(policy), 0) }},
		{
			Name: "policy.json replaced by rename", Path: policy, Kind: "content",
			Do: func() error { return rename(policy, loose) },
		},
		{Name: "policy.json deleted", Path: policy, Kind: "missing", Do: func() error { return os.Remove(at(policy)) }},
		{Name: "policy.json chmod 0666", Path: policy, Kind: "mode", Do: func() error { return os.Chmod(at(policy), 0o666) }},
		{
			Name: "policy.json chown nobody", Path: policy, Kind: "owner",
			Do: func() error { return os.Chown(at(policy), 65534, 65534) },
		},
		{Name: "policy.json made a symlink", Path: policy, Kind: "type", Do: func() error {
			return errors.Join(write(containers+"/loose.json", AcceptAnything),
				rename(policy, func(path string) error { return os.Symlink("loose.json", path) }))
		}},
		{Name: "policy.json made a directory", Path: policy, Kind: "type", Do: func() error {
			return errors.Join(os.Mkdir(at(policy)+".new", 0o755), exchange(at(policy), at(policy)+".new"),
				os.Remove(at(policy)+".new"))
		}},
		{
			Name: "registries.d file emptied", Path: lookasides, Kind: "content",
			Do: func() error { return os.Truncate(at(lookasides), 0) },
		},
		{
			Name: "registries.d file deleted", Path: lookasides, Kind: "missing",
			Do: func() error { return os.Remove(at(lookasides)) },
		},
		{Name: "registries.d deleted", Path: lookasides, Kind: "missing", Do: func() error {
			// in one step: the agent would put a file back before the directory is empty
			gone := at(containers + "/registries.gone")
			return errors.Join(os.Rename(filepath.Dir(at(lookasides)), gone), os.RemoveAll(gone))
		}},
		{Name: "/etc/containers replaced", Path: policy, Kind: "content", Do: func() error {
			next := containers + ".next"
			registries, err := os.ReadFile(at(containers + "/registries.conf"))
			if err != nil {
				return err
			}
			// What was there first stays beside it: with it would go what is mounted on it.
			return errors.Join(os.MkdirAll(at(next+"/registries.d"), 0o755), write(next+"/registries.conf", string(registries)),
				write(next+"/policy.json", AcceptAnything), exchange(at(containers), at(next)), h.Rebind())
		}},
		{
			Name: "a second registries.d file duplicates a scope", Path: containers + "/registries.d/zz-other.yaml",
			Kind: "duplicate",
			Do:   func() error { return write(containers+"/registries.d/zz-other.yaml", string(scopes)) },
			Undo: func() error { return os.Remove(at(containers + "/registries.d/zz-other.yaml")) },
		},
		{
			Name: "a registries.d file that doesn't parse", Path: containers + "/registries.d/zz-broken.yaml", Kind: "invalid",
			Do:   func() error { return write(containers+"/registries.d/zz-broken.yaml", "docker: [") },
			Undo: func() error { return os.Remove(at(containers + "/registries.d/zz-broken.yaml")) },
		},
		{
			Name: "root's own policy.json in the way", Path: "/root/.config/containers/policy.json", Kind: "masks",
			Do:   func() error { return write("/root/.config/containers/policy.json", AcceptAnything) },
			Undo: func() error { return os.RemoveAll(at("/root/.config/containers")) },
		},
		{
			Name: "root's own registries.d in the way", Path: "/root/.config/containers/registries.d", Kind: "masks",
			Do:   func() error { return write("/root/.config/containers/registries.d/x.yaml", "") },
			Undo: func() error { return os.RemoveAll(at("/root/.config/containers")) },
		},
		{
			Name: "a policy of one namespace in the way", Path: "/etc/crio/policies/default.json", Kind: "masks",
			Do:   func() error { return write("/etc/crio/policies/default.json", AcceptAnything) },
			Undo: func() error { return os.Remove(at("/etc/crio/policies/default.json")) },
		},
		{
			Name: "the key file removed", Path: "/" + h.Key, Kind: "key-missing",
			Do:   func() error { return os.Remove(at(h.Key)) },
			Undo: func() error { return os.WriteFile(at(h.Key), key, 0o644) },
		},
	}
	for i := range tamperings {
		d := &tamperings[i]
		d.root = h.Root
		if d.Undo != nil {
			continue
		}
		if d.want, err = os.ReadFile(at(d.Path)); err != nil {
			return nil, err
		}
	}
	return tamperings, nil
}

// exchange swaps what two names stand for, in one step: the agent would see, and heal, what lies between two steps.
func exchange(a, b string) error {
	return unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
}

// Healed says how the file that the agent must heal is not as it was before all tamperings.
func (d Tampering) Healed() error { return Whole(filepath.Join(d.root, d.Path), d.want) }

// Whole says how a file is not what an agent writes with that content.
func Whole(path string, want []byte) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	var stat unix.Stat_t
	if err := unix.Lstat(path, &stat); err != nil {
		return err
	}
	if info.Mode() != 0o644 || stat.Uid != 0 || stat.Gid != 0 {
		return fmt.Errorf("%s has mode %v and owner %d:%d", path, info.Mode(), stat.Uid, stat.Gid)
	}
	got, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("%s has other content, %d bytes", path, len(got))
	}
	return nil
}
