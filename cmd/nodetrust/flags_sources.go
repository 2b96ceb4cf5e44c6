package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/nodetrust/nodetrust/internal/audit"
	listing "github.com/nodetrust/nodetrust/internal/audit/sources"
	"github.com/nodetrust/nodetrust/internal/cli"
	"github.com/nodetrust/nodetrust/internal/cluster"
	"github.com/nodetrust/nodetrust/internal/verify/locate"
)

// sourceFlags say where the images are.
type sourceFlags struct {
	from      []string
	cluster   cluster.Config
	criSocket string
	node      string
	environ   []string // for podman
}

func (f *sourceFlags) add(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringArrayVar(&f.from, "images-from", nil,
		"`SOURCE` of images: cluster, cri, static-pods, podman, catalog:DIR, FILE or - (repeatable)")
	addCluster(cmd, &f.cluster)
	addCRISocket(cmd, &f.criSocket)
	fl.StringVar(&f.node, "node-name", "", "with cri, static-pods and podman: what this host is called (default its host name)")
	_ = cmd.RegisterFlagCompletionFunc("images-from",
		func(_ *cobra.Command, _ []string, prefix string) ([]cobra.Completion, cobra.ShellCompDirective) {
			if dir, ok := strings.CutPrefix(prefix, listing.Catalog); ok {
				return completeDirs(listing.Catalog, dir), cobra.ShellCompDirectiveNoSpace
			}
			var out []cobra.Completion
			for _, s := range listing.Names() {
				if strings.HasPrefix(s, prefix) {
					out = append(out, s)
				}
			}
			if len(out) == 1 && out[0] == listing.Catalog {
				return out, cobra.ShellCompDirectiveNoSpace
			}
			if prefix != "" && len(out) == 0 {
				return nil, cobra.ShellCompDirectiveDefault // files
			}
			return out, cobra.ShellCompDirectiveNoFileComp
		})
}

// completeDirs are the directories that continue prefix+dir.
func completeDirs(prefix, dir string) (out []cobra.Completion) {
	at := dir[:strings.LastIndexByte(dir, '/')+1]
	entries, _ := os.ReadDir(at + ".")
	for _, e := range entries {
		if e.IsDir() && strings.HasPrefix(at+e.Name(), dir) {
			out = append(out, prefix+at+e.Name()+"/")
		}
	}
	return out
}

// onlyFiles is true if no source but files and stdin was asked for.
func (f *sourceFlags) onlyFiles() bool {
	return len(f.from) > 0 && !slices.ContainsFunc(f.from, func(from string) bool { return !listing.IsFile(from) })
}

// options of sources.
func (f *sourceFlags) options(cmd *cobra.Command, root string) listing.Options {
	return listing.Options{
		Cluster: f.cluster, Root: root, CRISocket: f.criSocket, Environ: f.environ, Node: f.node, Stdin: cmd.InOrStdin(),
		Check: func(image string) error {
			_, err := locate.Canonical(strings.TrimPrefix(image, "docker://"))
			return err
		},
	}
}

// collect lists the images of all sources. The inventory is never nil; an error means that the audit can't go on.
func (f *sourceFlags) collect(cmd *cobra.Command, root string) (*audit.Inventory, error) {
	if len(f.from) == 0 {
		return f.collectDefault(cmd, root)
	}
	list, err := f.open(cmd, root)
	if err != nil {
		return nil, err
	}
	inventory, err := audit.Collect(cmd.Context(), locate.Canonical, list...)
	switch {
	case err != nil && f.onlyFiles() && cmd.Context().Err() == nil:
		return nil, cli.Usage(err)
	case err != nil && inventory.Len() == 0:
		return nil, sourceErr(err)
	case inventory.Len() == 0 && f.onlyFiles():
		return nil, cli.Usagef("--images-from %s: holds no image", strings.Join(f.from, ", "))
	}
	warn(cmd, err)
	return inventory, nil
}

// open makes the sources of --images-from.
func (f *sourceFlags) open(cmd *cobra.Command, root string) (list []audit.Named, err error) {
	for _, from := range f.from {
		s, err := listing.OpenNamed(from, f.options(cmd, root))
		if err != nil {
			err = cli.Usage(fmt.Errorf("--images-from %s: %w", from, err))
			switch {
			case from == listing.Cluster:
				err = cli.WithHint(err, kubeconfigHint)
			case listing.IsFile(from):
				err = cli.WithHint(err, "what is none of cluster, cri, static-pods, podman and catalog:DIR is a file of references; - is stdin")
			}
			return nil, err
		}
		list = append(list, s)
	}
	return list, nil
}

// collectDefault takes the cluster if there is one, else what this host runs. It says on stderr which.
func (f *sourceFlags) collectDefault(cmd *cobra.Command, root string) (*audit.Inventory, error) {
	inventory, err := listing.CollectDefault(cmd.Context(), f.options(cmd, root), locate.Canonical,
		func(line string) { cli.Say(cmd.ErrOrStderr(), cli.Note, "%s", line) })
	_, none := errors.AsType[*listing.NoneError](err)
	switch {
	case none:
		return nil, cli.WithHint(cli.Usage(err), "name them with --images-from")
	case inventory == nil:
		return nil, sourceErr(err)
	}
	warn(cmd, err)
	return inventory, nil
}

// warn tells of sources that failed beside others.
func warn(cmd *cobra.Command, err error) {
	if err != nil {
		cli.Say(cmd.ErrOrStderr(), cli.Warning, "%v", err)
	}
}

func sourceErr(err error) error {
	if cluster.IsForbidden(err) {
		return cli.WithHint(err, "listing pods of all namespaces and nodes takes the right to: name another user with --kubeconfig or --context")
	}
	if errors.Is(err, context.Canceled) {
		return &cli.ExitError{Code: cli.ExitUnknown, Err: errors.New("interrupted before any image was listed")}
	}
	return err
}
