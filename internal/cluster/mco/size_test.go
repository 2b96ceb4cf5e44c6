package mco

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// large is a dump with files of n bytes in total, and a second file of the same path for each, which replaces the
// first.
func large(t *testing.T, n int) *Dump {
	t.Helper()
	d := &Dump{}
	for i, name := range []string{"50-worker-a", "51-worker-b"} {
		object := fmt.Sprintf(`{"apiVersion":"machineconfiguration.openshift.io/v1","kind":"MachineConfig","metadata":{"name":%q,"labels":{"machineconfiguration.openshift.io/role":"worker"}},
		  "spec":{"config":{"ignition":{"version":"3.4.0"},"storage":{"files":[{"path":"/etc/large","contents":{"source":"data:,%s"}}]}}}}`, name, strings.Repeat(string(rune('a'+i)), n))
		if err := d.Add(json.RawMessage(object)); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

func TestCheckSize(t *testing.T) {
	for _, tt := range []struct {
		bytes      int
		warn, fail bool
	}{{1 << 10, false, false}, {1_200_000, true, false}, {1_500_000, true, false}, {1_572_864, false, true}} {
		warn, err := Target{
			Dump: large(t, tt.bytes), Pool: "worker",
			Minor: 18,
		}.CheckSize(mc("51-worker-rh", "worker", "", ourPolicy))
		if (warn != "") != tt.warn || (err != nil) != tt.fail {
			t.Errorf("%d: %s, %v", tt.bytes, warn, err)
		}
		if text := warn + fmt.Sprint(err); (tt.warn || tt.fail) && !strings.Contains(text, "at most 1572864") {
			t.Errorf("%d: no figures: %s", tt.bytes, text)
		}
	}
}

// TestRenderedSize_real: the bound holds for what the MCO of a real cluster rendered, and is near.
func TestRenderedSize_real(t *testing.T) {
	d := realCluster(t)
	for _, pool := range []string{"master", "worker"} {
		got, err := Target{Dump: d, Pool: pool, Minor: 16}.RenderedSize(mc("51-"+pool+"-empty", pool, "", ""))
		if err != nil {
			t.Fatal(err)
		}
		largest := 0
		for _, c := range d.Configs {
			if c.Rendered() && strings.HasPrefix(c.Name, "rendered-"+pool+"-") {
				largest = max(largest, c.Size())
			}
		}
		if largest == 0 || got < largest || got > largest*5/4+metadataSize {
			t.Errorf("%s: computed %d bytes, the rendered one has %d", pool, got, largest)
		}
	}
}
