package lint

import (
	"strings"

	"github.com/nodetrust/nodetrust/internal/cluster/mco"
)

// merged finds MachineConfigs of ours into which others were merged that are not in the list any more as they were:
// what those demand now reaches no node.
func (r *runner) merged(d *mco.Dump) {
	for _, c := range d.Configs {
		if !c.Merged() || c.Rendered() {
			continue
		}
		why, err := mco.Target{Dump: d, Pool: c.Role(), Minor: d.Minor}.Outdated(c)
		at := place{file: c.Name}
		switch {
		case err != nil && len(d.Configs) > 1: // alone, there is nothing to compare with
			r.add("merged-outdated", at, "whether what was merged into it has changed can't be told: %v", err).Severity = Warning
		case err == nil && len(why) > 0:
			r.add("merged-outdated", at, "what was merged into it has changed, and reaches no node: %s",
				strings.Join(why, "; "))
		}
	}
}
