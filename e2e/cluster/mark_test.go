package cluster

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestDown ends what `make lab` runs and sweeps what is dead, and leaves the clusters of tests alone that run beside
// it.
func TestDown(t *testing.T) {
	for _, tt := range []struct {
		name, program string
		alive, ends   bool
	}{
		{"of make lab", "lab", true, true},
		{"of a test that runs", "cluster.test", true, false},
		{"of a test that was killed", "cluster.test", false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tmp := t.TempDir()
			t.Setenv("TMPDIR", tmp)
			process := exec.Command("sleep", "600")
			must(t, process.Start())
			waited := make(chan struct{})
			go func() { _ = process.Wait(); close(waited) }()
			t.Cleanup(func() { _ = process.Process.Kill(); <-waited })
			m := mark{PID: process.Process.Pid, Program: tt.program, Started: "0"} // of a process that had this number before
			if tt.alive {
				started, err := startTime(m.PID)
				must(t, err)
				m.Started = started
			}
			b, err := json.Marshal(m)
			must(t, err)
			dir := filepath.Join(tmp, "nt-lab-1")
			must(t, os.Mkdir(dir, 0o755))
			must(t, os.WriteFile(filepath.Join(dir, markFile), b, 0o644))
			ended, kept, err := Down()
			if err != nil || (ended == 1) != tt.ends || (kept == 1) == tt.ends {
				t.Errorf("ended %d, kept %d, %v", ended, kept, err)
			}
			if _, err := os.Stat(dir); os.IsNotExist(err) != tt.ends {
				t.Errorf("its directory: %v", err)
			}
			if tt.alive && tt.ends {
				<-waited
				return
			}
			if state, err := startTime(m.PID); err != nil {
				t.Errorf("its process was ended: %s %v", state, err)
			}
		})
	}
}
