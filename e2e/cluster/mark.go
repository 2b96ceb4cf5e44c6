package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/nodetrust/nodetrust/e2e/lab"
	"github.com/nodetrust/nodetrust/internal/fixture"
)

const markFile = "cluster.json"

// mark is what `lab-down` finds of a running cluster: the file cluster.json in its directory.
type mark struct {
	PID     int          `json:"pid"`
	Program string       `json:"program"` // its name
	Started string       `json:"started"` // of the process, in ticks since boot
	Cgroups []lab.Cgroup `json:"cgroups"`
	GPG     string       `json:"gpg"` // home
}

func (c *Cluster) writeMark() error {
	started, err := startTime(os.Getpid())
	if err != nil {
		return err
	}
	m := mark{PID: os.Getpid(), Program: filepath.Base(os.Args[0]), Started: started, Cgroups: c.cgroups}
	if c.Images != nil {
		m.GPG = c.gpg.Home()
	}
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	path := filepath.Join(c.dir, markFile)
	// In one step: this process may be killed at any moment.
	return errors.Join(os.WriteFile(path+".new", b, 0o644), os.Rename(path+".new", path))
}

// startTime is when the process began, in ticks since boot: with its number it names a process for good.
func startTime(pid int) (string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(f) < 20 {
		return "", errors.New("stat is not understood")
	}
	if f[0] == "Z" {
		return "", errors.New("the process has ended, its parent hasn't asked for it yet")
	}
	return f[19], nil
}

// labProgram is what `make lab` runs.
const labProgram = "lab"

// Down ends the clusters of this machine that `make lab` started, and removes what those left behind that were
// killed, those of tests too. It returns how many there were. Clusters of tests that run are left alone, and counted
// as kept.
func Down() (ended, kept int, err error) {
	marks, err := filepath.Glob(filepath.Join(os.TempDir(), "nt-lab-*", markFile))
	if err != nil {
		return 0, 0, err
	}
	var errs []error
	for _, path := range marks {
		mine, err := down(path)
		if errs = append(errs, err); mine {
			ended++
		} else {
			kept++
		}
	}
	return ended, kept, errors.Join(errs...)
}

// down does it with the cluster of a mark, unless it is that of something else which is running.
func down(path string) (mine bool, err error) {
	var m mark
	b, err := os.ReadFile(path)
	if err != nil {
		return true, err
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return true, fmt.Errorf("reading %s: %w", path, err)
	}
	alive := func() bool {
		started, err := startTime(m.PID)
		return err == nil && started == m.Started
	}
	if alive() && m.Program != labProgram {
		return false, nil
	}
	if alive() {
		if err := syscall.Kill(m.PID, syscall.SIGTERM); err != nil {
			return true, fmt.Errorf("ending the lab: %w", err)
		}
		err := lab.Poll(patience, func() error {
			if alive() {
				return fmt.Errorf("process %d goes on", m.PID)
			}
			return nil
		})
		if err != nil {
			return true, fmt.Errorf("ending the lab: %w", err)
		}
	}
	if m.GPG != "" {
		fixture.RemoveGPG(m.GPG)
	}
	var errs []error
	for _, g := range m.Cgroups {
		errs = append(errs, removeCgroup(g))
	}
	// Programs of a lab that was killed may be about to end, and write until then.
	remove := func() error { return os.RemoveAll(filepath.Dir(path)) }
	return true, errors.Join(append(errs, lab.Poll(30*time.Second, remove))...)
}
