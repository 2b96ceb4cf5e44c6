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
		f := Finding{
			Code: "merged-outdated", File: c.Name,
			Hint: "render it again with --cluster and --merge, and apply it",
		}
		why, err := mco.Target{Dump: d, Pool: c.Role(), Minor: d.Minor}.Outdated(c)
		switch {
		case err != nil && len(d.Configs) == 1: // nothing to compare with
			continue
		case err != nil:
			f.Severity, f.Message = Warning, "whether what was merged into it has changed can't be told: "+err.Error()
		case len(why) == 0:
			continue
		default:
			f.Message = "what was merged into it has changed, and reaches no node: " + strings.Join(why, "; ")
		}
		r.add(f)
	}
}
