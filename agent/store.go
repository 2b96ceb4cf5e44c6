package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nodetrust/nodetrust/agent/disk"
	"github.com/nodetrust/nodetrust/agent/found"
	"github.com/nodetrust/nodetrust/internal/bounded"
	"github.com/nodetrust/nodetrust/internal/trust"
)

// Paths of the agent's memory on the host.
const (
	stateDir  = "/var/lib/nodetrust"
	stateFile = stateDir + "/state.json"
	lockFile  = stateDir + "/lock"
	foundDir  = stateDir + "/found"

	// maxState holds two of the largest sets in base64.
	maxState = 32 << 20
	// lockTime bounds the wait for a predecessor's end.
	lockTime = 5 * time.Second
)

type set struct {
	name, digest string
	files        trust.FileSet
	canaries     []trust.Canary
}

type memory struct {
	// LastGood is the last set that its canaries confirmed.
	LastGood *savedSet `json:"lastGood,omitempty"`
	// Accepted are the accept-canaries that were accepted under LastGood.
	Accepted []string `json:"accepted,omitempty"`
	// Trial is the set on disk that loads and is neither confirmed nor rejected. A starting agent continues with it:
	// restoring LastGood would be a step back without a cause.
	Trial *savedSet `json:"trial,omitempty"`
	// Rejected is the set that was rolled back last.
	Rejected *rejection `json:"rejected,omitempty"`
	// Obsolete are files of earlier sets that are still to be removed.
	Obsolete []string `json:"obsolete,omitempty"`
	// Owned are the images that were not in the runtime's store before we probed.
	Owned []string `json:"owned,omitempty"`
}

type savedSet struct {
	Digest   string         `json:"digest"`
	Name     string         `json:"name,omitempty"`
	Files    []savedFile    `json:"files"`
	Canaries []trust.Canary `json:"canaries,omitempty"`
}

type savedFile struct {
	Path string `json:"path"`
	Mode uint32 `json:"mode"`
	UID  uint32 `json:"uid"`
	GID  uint32 `json:"gid"`
	Data []byte `json:"data"`
}

type rejection struct {
	Digest  string `json:"digest"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
	// Found is true if what was found on the host stands in for the set.
	Found bool `json:"found,omitempty"`
}

func save(s *set) *savedSet {
	out := &savedSet{Digest: s.digest, Name: s.name, Canaries: s.canaries}
	for _, f := range disown(s.files) {
		out.Files = append(out.Files, savedFile(f))
	}
	return out
}

func digestOf(s *savedSet) string {
	if s == nil {
		return ""
	}
	return s.Digest
}

// set returns the saved set if its content has the saved digest.
func (s *savedSet) set() (*set, error) {
	out := &set{name: s.Name, digest: s.Digest, canaries: s.Canaries}
	for _, f := range s.Files {
		out.files = append(out.files, trust.File(f))
	}
	if got := out.files.Digest(); got != s.Digest {
		return nil, fmt.Errorf("a remembered set has digest %s, not %s", got, s.Digest)
	}
	return out, nil
}

// store keeps the memory and what was found on the host, under a lock of one agent. A nil root keeps the memory in
// the process.
type store struct {
	root   *os.Root
	lock   *os.File
	found  *found.Store // nil while it can't be read: nothing may be replaced then
	broken error        // why nothing can be saved; opening is tried again
	saved  string       // digest of the last good set on disk
	memory
}

// errLocked means that another agent works on the same host root.
var errLocked = errors.New("another nodetrust-agent is at work on this host root")

// openStore takes the lock and reads the memory. Its only error is errLocked: a store that can't be opened is broken,
// and keeps the memory in the process.
func openStore(root *os.Root, log *slog.Logger) (*store, error) {
	s := &store{root: root}
	return s, s.open(log)
}

// open does what openStore says, also for a broken store. What the process remembers counts more than what is on disk.
func (s *store) open(log *slog.Logger) error {
	s.broken = makeStateDir(s.root)
	if s.lock == nil {
		lock, err := takeLock(s.root)
		if errors.Is(err, errLocked) {
			return err
		}
		if err != nil {
			s.broken = errors.Join(s.broken, err)
		}
		s.lock = lock
	}
	was := s.memory
	s.memory = memory{}
	if err := disk.Sweep(s.root, []string{stateFile}); err != nil {
		log.Warn("sweeping", "err", err)
	}
	if err := s.read(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Warn("starting without the last good set", "path", stateFile, "err", err)
		s.memory = memory{}
	}
	s.saved = digestOf(s.LastGood)
	s.add(was)
	if s.lock == nil {
		return nil // somebody else may be at work
	}
	if err := s.openFound(log); err != nil {
		s.broken = errors.Join(s.broken, err)
	}
	return nil
}

// add puts what the process remembered meanwhile over what was on disk.
func (s *store) add(was memory) {
	if was.LastGood != nil {
		s.LastGood, s.Accepted = was.LastGood, was.Accepted
	}
	if was.Trial != nil || was.LastGood != nil {
		s.Trial = was.Trial
	}
	if was.Rejected != nil {
		s.Rejected = was.Rejected
	}
	s.Obsolete = union(s.Obsolete, was.Obsolete)
	s.Owned = union(s.Owned, was.Owned)
}

func union(x, y []string) []string {
	out := slices.Concat(x, y)
	slices.Sort(out)
	return slices.Compact(out)
}

// openFound reads what was found on the host. Files of sets that an older version has written, which kept nothing,
// are noted as such.
func (s *store) openFound(log *slog.Logger) error {
	f, err := found.Open(s.root, foundDir)
	if err != nil {
		return err
	}
	if err := f.Sweep(); err != nil {
		log.Warn("sweeping", "path", foundDir, "err", err)
	}
	if f.Empty() {
		for _, saved := range []*savedSet{s.LastGood, s.Trial} {
			if saved == nil {
				continue
			}
			old, err := saved.set()
			if err == nil {
				err = f.Lose(old.files)
			}
			if err != nil {
				return err
			}
		}
	}
	s.found = f
	return nil
}

// takeLock takes the lock, on a read-only file system too if the file exists.
func takeLock(root *os.Root) (*os.File, error) {
	for end := time.Now().Add(lockTime); ; time.Sleep(50 * time.Millisecond) {
		lock, err := root.OpenFile(lockFile[1:], os.O_RDWR|os.O_CREATE|unix.O_NONBLOCK, 0o600)
		if err != nil {
			lock, err = root.OpenFile(lockFile[1:], os.O_RDONLY|unix.O_NONBLOCK, 0)
		}
		if err != nil {
			return nil, fmt.Errorf("opening the lock: %w", err)
		}
		err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil && isAt(root, lock) {
			return lock, nil
		}
		lock.Close()
		switch {
		case err == nil: // removed by a --restore meanwhile
		case !errors.Is(err, unix.EWOULDBLOCK):
			return nil, fmt.Errorf("locking %s: %w", lockFile, err)
		}
		if time.Now().After(end) {
			return nil, fmt.Errorf("locking %s: %w", lockFile, errLocked)
		}
	}
}

func isAt(root *os.Root, lock *os.File) bool {
	x, err := root.Lstat(lockFile[1:])
	if err != nil {
		return false
	}
	y, err := lock.Stat()
	return err == nil && os.SameFile(x, y)
}

func makeStateDir(root *os.Root) error {
	if info, err := root.Lstat(stateDir[1:]); err == nil && info.IsDir() && info.Mode().Perm() == 0o700 {
		return nil
	}
	if err := root.MkdirAll(path.Dir(stateDir)[1:], 0o755); err != nil {
		return fmt.Errorf("making %s: %w", stateDir, err)
	}
	if err := root.Mkdir(stateDir[1:], 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("making %s: %w", stateDir, err)
	}
	if err := root.Chmod(stateDir[1:], 0o700); err != nil {
		return fmt.Errorf("making %s: %w", stateDir, err)
	}
	return nil
}

func (s *store) read() error {
	b, err := bounded.ReadRegular(s.root.OpenFile, stateFile[1:], maxState)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, &s.memory); err != nil {
		return errors.New("no valid JSON")
	}
	for _, saved := range []*savedSet{s.LastGood, s.Trial} {
		if saved == nil {
			continue
		}
		if _, err := saved.set(); err != nil {
			return err
		}
	}
	return nil
}

func (s *store) write() error {
	switch {
	case s.root == nil:
		return nil
	case s.broken != nil:
		return s.broken
	}
	b, err := json.Marshal(s.memory)
	if err != nil {
		return fmt.Errorf("remembering: %w", err)
	}
	_, err = disk.Replace(s.root, trust.File{
		Path: stateFile, Mode: 0o600, UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()), Data: append(b, '\n'),
	})
	if err == nil {
		s.saved = digestOf(s.LastGood)
	}
	return err
}

// keep keeps what is found at the paths of files before they are written there.
func (s *store) keep(files trust.FileSet) error {
	switch {
	case s.root == nil:
		return nil
	case s.found == nil && s.broken != nil:
		return s.broken
	case s.found == nil:
		return errors.New("what was found on the host is not known")
	}
	return s.found.Keep(files)
}

func (s *store) close() {
	if s.lock != nil {
		s.lock.Close()
	}
}
