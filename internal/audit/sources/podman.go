package sources

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/nodetrust/nodetrust/internal/audit"
	"github.com/nodetrust/nodetrust/internal/cluster"
	"github.com/nodetrust/nodetrust/internal/outside"
)

const podmanTimeout = time.Minute

// podmanSource finds the images of podman's containers and stores: of the caller and, under sudo, of who called sudo.
type podmanSource struct {
	environ []string
	host    string
}

func (s podmanSource) Uses(ctx context.Context, yield func(audit.Use) error) error {
	if s.environ == nil {
		s.environ = os.Environ()
	}
	if err := s.store(ctx, podmanUser{environ: s.environ}, yield); err != nil {
		return err
	}
	caller, ok, err := s.caller()
	if err != nil || !ok {
		return err
	}
	return s.store(ctx, caller, yield)
}

// podmanUser is the owner of a store. The zero credential is that of this process.
type podmanUser struct {
	name       string
	environ    []string
	credential *syscall.Credential
}

// caller returns the user who called sudo, if there is one.
func (s podmanSource) caller() (u podmanUser, ok bool, err error) {
	id := ""
	for _, kv := range s.environ {
		if v, found := strings.CutPrefix(kv, "SUDO_UID="); found {
			id = v
		}
	}
	if id == "" || id == "0" || os.Geteuid() != 0 {
		return u, false, nil
	}
	who, err := user.LookupId(id)
	if err != nil {
		return u, false, fmt.Errorf("looking for the user of sudo: %w", err)
	}
	if !hasStore(who.HomeDir) {
		return u, false, nil
	}
	uid, err := strconv.ParseUint(who.Uid, 10, 32)
	if err != nil {
		return u, false, err
	}
	gid, err := strconv.ParseUint(who.Gid, 10, 32)
	if err != nil {
		return u, false, err
	}
	u = podmanUser{name: who.Username, credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	u.environ = []string{"HOME=" + who.HomeDir, "USER=" + who.Username, "XDG_RUNTIME_DIR=/run/user/" + who.Uid}
	for _, kv := range s.environ {
		if strings.HasPrefix(kv, "PATH=") {
			u.environ = append(u.environ, kv)
		}
	}
	return u, true, nil
}

// hasStore reports whether a user has used podman: podman would make a new store for others.
func hasStore(home string) bool {
	for _, name := range []string{".local/share/containers/storage", ".config/containers/storage.conf"} {
		if _, err := os.Stat(filepath.Join(home, name)); err == nil {
			return true
		}
	}
	return false
}

// podmanImage and podmanContainer are the used parts of podman's lists.
type podmanImage struct {
	ID          string   `json:"Id"`
	Names       []string `json:"Names"`
	RepoTags    []string `json:"RepoTags"`
	RepoDigests []string `json:"RepoDigests"`
}

type podmanContainer struct {
	Names   []string `json:"Names"`
	Image   string   `json:"Image"`
	ImageID string   `json:"ImageID"`
	IsInfra bool     `json:"IsInfra"`
}

func (s podmanSource) store(ctx context.Context, u podmanUser, yield func(audit.Use) error) error {
	var images []podmanImage
	if err := u.list(ctx, &images, "images"); err != nil {
		return err
	}
	var containers []podmanContainer
	if err := u.list(ctx, &containers, "ps", "--all"); err != nil {
		return err
	}
	who := "podman"
	if u.name != "" {
		who += ":" + u.name
	}
	for _, c := range containers {
		if err := c.uses(images, who, s.host, yield); err != nil {
			return err
		}
	}
	seen := map[string]bool{}
	for _, i := range images {
		if seen[i.ID] {
			continue // listed once for each name, each time with all names
		}
		seen[i.ID] = true
		if err := localLeftOut(i.references(), audit.Use{By: who + "@" + s.host}, yield); err != nil {
			return err
		}
	}
	return nil
}

func (c podmanContainer) uses(images []podmanImage, who, host string, yield func(audit.Use) error) error {
	name := ""
	if len(c.Names) > 0 {
		name = "/" + c.Names[0]
	}
	ref := cluster.PodImage{Reference: c.Image}
	for _, i := range images {
		if i.ID != c.ImageID {
			continue
		}
		for _, r := range i.references() {
			if r.Reference == c.Image {
				ref.Digest = r.Digest
			}
		}
	}
	use := audit.Use{By: who + name + "@" + host}
	if c.IsInfra {
		use.Role = audit.Pause
	}
	return localLeftOut([]cluster.PodImage{ref}, use, yield)
}

// references returns the names of an image: RepoTags or Names, depending on podman's version.
func (i podmanImage) references() []cluster.PodImage {
	names := append(append([]string{}, i.Names...), i.RepoDigests...)
	if len(i.Names) == 0 {
		names = append(names, i.RepoTags...)
	}
	return cluster.References(names)
}

// localLeftOut yields use for every reference, except for images that were built here and are never pulled.
func localLeftOut(refs []cluster.PodImage, use audit.Use, yield func(audit.Use) error) error {
	for _, r := range refs {
		if strings.HasPrefix(r.Reference, "localhost/") {
			continue
		}
		use.Image, use.Digest = r.Reference, r.Digest
		if err := yield(use); err != nil {
			return err
		}
	}
	return nil
}

func (u podmanUser) list(ctx context.Context, to any, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, podmanTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "podman", append(args, "--format", "json")...)
	cmd.Dir, cmd.Env = "/", u.environ
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: u.credential}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	stdout, stderr := &limited{max: maxListing}, &limited{max: 4 << 10}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	err := cmd.Run()
	switch {
	case ctx.Err() != nil:
		err = ctx.Err()
	case stdout.over:
		err = fmt.Errorf("more than %d bytes", maxListing)
	case err == nil:
		err = json.Unmarshal(stdout.b, to)
	case len(stderr.b) > 0:
		err = errors.New(outside.Text(string(stderr.b)))
	}
	if err != nil {
		return fmt.Errorf("running podman %s: %w", args[0], err)
	}
	return nil
}

type limited struct {
	b    []byte
	max  int
	over bool
}

func (l *limited) Write(p []byte) (int, error) {
	n := min(len(p), l.max-len(l.b))
	l.b = append(l.b, p[:n]...)
	l.over = l.over || n < len(p)
	return len(p), nil
}
