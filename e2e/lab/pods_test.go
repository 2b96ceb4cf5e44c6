package lab

import (
	"errors"
	"slices"
	"testing"
)

func TestMissingControllers(t *testing.T) {
	for _, tt := range []struct {
		name, mounts, handed string
		want                 []string
	}{
		{
			"version 1", "cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0\ncgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\ncgroup /sys/fs/cgroup/pids cgroup rw,pids 0 0",
			"", nil,
		},
		{
			"both", "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0",
			"memory pids\n", nil,
		},
		{"version 2", "cgroup2 /sys/fs/cgroup cgroup2 rw,nsdelegate 0 0", "cpuset cpu io memory pids\n", nil},
		{"version 2 that hands down little", "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0", "pids\n", []string{"cpu", "memory"}},
		{"none", "proc /proc proc rw 0 0", "", []string{"cpu", "memory", "pids"}},
	} {
		got, err := missingControllers(tt.mounts, func(string) ([]byte, error) { return []byte(tt.handed), nil })
		if err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, %v", tt.name, got, err)
		}
	}
	_, err := missingControllers("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0",
		func(string) ([]byte, error) { return nil, errors.New("gone") })
	if err == nil {
		t.Error("what can't be read is taken for there")
	}
}
