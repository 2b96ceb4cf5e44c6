package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nodetrust/nodetrust/agent/disk"
	"github.com/nodetrust/nodetrust/internal/bounded"
	"github.com/nodetrust/nodetrust/internal/trust"
)

// Paths of the agent's memory on the host.
const (
	stateDir  = "/var/lib/nodetrust"
	stateFile = stateDir + "/state.json"
	lockFile  = stateDir + "/lock"

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

// store keeps the memory on the host, under a lock of one agent. A nil root keeps it in the process.
type store struct {
	root *os.Root
	lock *os.File
	memory
}

// errLocked means that another agent works on the same host root.
var errLocked = errors.New("another nodetrust-agent is at work on this host root")

// openStore takes the lock and reads the memory. An unreadable memory becomes an empty one: only the way back to the
// last good set is lost.
func openStore(root *os.Root, log *slog.Logger) (*store, error) {
	if err := makeStateDir(root); err != nil {
		return nil, err
	}
	lock, err := root.OpenFile(lockFile[1:], os.O_RDWR|os.O_CREATE|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the lock: %w", err)
	}
	for end := time.Now().Add(lockTime); ; time.Sleep(50 * time.Millisecond) {
		err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EWOULDBLOCK) || time.Now().After(end) {
			lock.Close()
			if errors.Is(err, unix.EWOULDBLOCK) {
				err = errLocked
			}
			return nil, fmt.Errorf("locking %s: %w", lockFile, err)
		}
	}
	s := &store{root: root, lock: lock}
	if err := disk.Sweep(root, []string{stateFile}); err != nil {
		log.Warn("sweeping", "err", err)
	}
	if err := s.read(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Warn("starting without the last good set", "path", stateFile, "err", err)
		s.memory = memory{}
	}
	return s, nil
}

func makeStateDir(root *os.Root) error {
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
	if s.root == nil {
		return nil
	}
	b, err := json.Marshal(s.memory)
	if err != nil {
		return fmt.Errorf("remembering: %w", err)
	}
	_, err = disk.Replace(s.root, trust.File{
		Path: stateFile, Mode: 0o600, UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()), Data: append(b, '\n'),
	})
	return err
}

func (s *store) close() {
	if s.lock != nil {
		s.lock.Close()
	}
}
