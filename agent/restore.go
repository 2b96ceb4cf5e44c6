package agent

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/nodetrust/nodetrust/agent/disk"
)

// ErrMCO says that there is nothing to restore: the Machine Config Operator owns the node's files.
var ErrMCO = errors.New("nothing to restore: the Machine Config Operator owns this node's files")

// Restore puts back what was found on the host before the agent's first write, and removes all that is the agent's. It
// returns what it left as it is, because somebody else has changed it since; then it keeps the originals, too. After an
// error or the end of the process it can be run again.
func Restore(ctx context.Context, o Options) (left []string, err error) {
	root, err := os.OpenRoot(o.HostRoot)
	if err != nil {
		return nil, fmt.Errorf("opening the host root: %w", err)
	}
	defer root.Close()
	if _, err := root.Lstat(stateDir[1:]); errors.Is(err, os.ErrNotExist) {
		if hasMCO(root) {
			return nil, ErrMCO
		}
		return nil, nil
	}
	s, err := openStore(root, o.Log)
	if err != nil {
		return nil, err
	}
	defer s.close()
	if s.broken != nil {
		return nil, s.broken
	}
	mco := hasMCO(root)
	if mco && !s.found.Empty() {
		return []string{foundDir + " holds what was found before the Machine Config Operator owned this node's files"}, nil
	}
	a := &Agent{Options: o, store: s}
	a.removeOwned(ctx)
	there, err := s.found.Restore()
	if err != nil {
		return nil, err
	}
	for _, l := range there {
		o.Log.Warn("left as it is", "path", l.Path, "why", l.Why)
		left = append(left, l.String())
	}
	if len(left) > 0 {
		return left, nil
	}
	if err := s.forget(); err != nil {
		return nil, err
	}
	if mco {
		return nil, ErrMCO
	}
	return nil, nil
}

// removeOwned removes the canaries' images that a killed agent has left in the runtime's store.
func (a *Agent) removeOwned(ctx context.Context) {
	if len(a.store.Owned) == 0 || a.Child == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, removeTime)
	defer cancel()
	if err := a.remove(ctx, a.store.Owned); err != nil {
		a.Log.Warn("removing canary images", "images", a.store.Owned, "err", err)
	}
}

// forget removes the memory, what was found, and the directory. Interrupted it leaves a host that is restored, and can
// be repeated: the memory goes first, the index of what was found after it.
func (s *store) forget() error {
	if err := disk.Remove(s.root, stateFile); err != nil {
		return err
	}
	if err := s.found.Forget(); err != nil {
		return err
	}
	if err := disk.Remove(s.root, lockFile); err != nil {
		return err
	}
	_, err := disk.RemoveDir(s.root, stateDir)
	return err
}
