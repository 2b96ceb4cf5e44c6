package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/nodetrust/nodetrust/internal/bounded"
	"github.com/nodetrust/nodetrust/internal/desired"
	"github.com/nodetrust/nodetrust/internal/judge"
	"github.com/nodetrust/nodetrust/internal/trust"
)

const (
	mcdDir        = "etc/machine-config-daemon"
	currentConfig = mcdDir + "/currentconfig"
	maxConfig     = 8 << 20
)

// hasMCO reports whether the Machine Config Operator has been at work below root. If it can't tell it returns true,
// which forbids writes.
func hasMCO(root *os.Root) bool {
	_, err := root.Lstat(mcdDir)
	return !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ENOTDIR)
}

// shadowed reports whether a differing file has the bytes of the MCO's current config: then another MachineConfig has
// won over ours.
func shadowed(root *os.Root, ds []judge.Difference, name string) *judge.Problem {
	var current map[string]string
	for _, d := range ds {
		if d.Kind != judge.Content {
			continue
		}
		if current == nil {
			var err error
			if current, err = readCurrentConfig(root); err != nil {
				return nil
			}
		}
		if current[d.Path] == d.Got {
			return &judge.Problem{
				Reason: judge.ReasonOtherMachineConfig,
				Message: d.Path + " is as the node's current MachineConfig has it; " + applyAdvice(name) +
					" so that no other one overrides it",
			}
		}
	}
	return nil
}

func applyAdvice(name string) string {
	if name == "" {
		return "apply the rendered MachineConfig"
	}
	return "apply MachineConfig " + name
}

// readCurrentConfig returns the digests of the files in the node's current rendered config. It skips entries that it
// can't parse.
func readCurrentConfig(root *os.Root) (map[string]string, error) {
	data, err := bounded.ReadRegular(root.OpenFile, currentConfig, maxConfig)
	if err != nil {
		return nil, err
	}
	var mc struct {
		Spec struct {
			Config struct {
				Storage struct {
					Files []struct {
						Path     string `json:"path"`
						Contents struct {
							Source      string `json:"source"`
							Compression string `json:"compression"`
						} `json:"contents"`
					} `json:"files"`
				} `json:"storage"`
			} `json:"config"`
		} `json:"spec"`
	}
	if err := json.Unmarshal(data, &mc); err != nil {
		return nil, fmt.Errorf("parsing %s: %w", currentConfig, err)
	}
	out := map[string]string{}
	for _, file := range mc.Spec.Config.Storage.Files {
		b, err := desired.Contents(file.Contents.Source, file.Contents.Compression)
		if err != nil {
			continue
		}
		out[file.Path] = trust.ContentDigest(b)
	}
	return out, nil
}
