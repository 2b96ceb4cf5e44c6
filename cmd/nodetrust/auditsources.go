package main

import (
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/nodetrust/nodetrust/audit"
	"github.com/nodetrust/nodetrust/verify"
)

// isNoFile is true for a value of --images-from that names no file.
func isNoFile(from string) bool {
	switch from {
	case "cluster", "cri", "static-pods", "podman":
		return true
	}
	return strings.HasPrefix(from, "catalog:")
}

// sources opens what --images-from names. The returned function closes them.
func (o *auditOptions) sources(cmd *cobra.Command) (list []audit.Named, closeAll func(), err error) {
	var files []*os.File
	closeAll = func() {
		for _, f := range files {
			f.Close()
		}
	}
	defer func() {
		if err != nil {
			closeAll()
		}
	}()
	if len(o.from) == 0 {
		return nil, nil, usagef("--images-from is missing: FILE or -")
	}
	check := func(image string) error {
		_, err := verify.Canonical(strings.TrimPrefix(image, "docker://"))
		return err
	}
	for _, from := range o.from {
		switch {
		case from == "-":
			list = append(list, audit.Named{Name: "stdin", Source: audit.List{Name: "stdin", Reader: cmd.InOrStdin(), Check: check}})
		case isNoFile(from):
			return nil, nil, usagef("--images-from %s: is not available in this version", from)
		default:
			f, err := os.Open(from)
			if err != nil {
				return nil, nil, usagef("--images-from: %v", err)
			}
			files = append(files, f)
			list = append(list, audit.Named{Name: from, Source: audit.List{Name: from, Reader: f, Check: check}})
		}
	}
	return list, closeAll, nil
}
