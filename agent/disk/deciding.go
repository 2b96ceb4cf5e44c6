package disk

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/nodetrust/nodetrust/internal/policy"
	"github.com/nodetrust/nodetrust/internal/registriesd"
	"github.com/nodetrust/nodetrust/internal/trust"
)

// besideDirs are the directories with files that decide beside registries.d and the policies: CRI-O's configuration,
// which may name another policy, and mirrors.
func besideDirs() []string {
	return []string{
		"/etc/crio",
		"/etc/crio/crio.conf.d",
		"/etc/containers",
		"/etc/containers/registries.conf.d",
		"/usr/share/containers",
		"/usr/share/containers/registries.conf.d",
	}
}

// Deciding returns a text that changes when a file changes that decides on pulls and is not of want: key files that
// its policy names, all registries.d files, policies of namespaces, configuration of CRI-O, registries.conf. It reads
// metadata only.
func Deciding(root *os.Root, want trust.FileSet) string {
	sum := sha256.New()
	for _, dir := range slices.Concat(registriesd.Dirs(), []string{policy.NamespacedDir}, besideDirs()) {
		d, err := openFolder(root, dir)
		if err != nil {
			continue
		}
		names, _ := d.names()
		slices.Sort(names)
		for _, n := range names {
			p := path.Join(dir, n)
			if _, ours := want.Get(p); ours || !decides(dir, n) {
				continue
			}
			fmt.Fprintf(sum, "%s %v\n", p, d.stat(n))
			if real, err := resolve(root, p); err == nil && real != p {
				fmt.Fprintf(sum, "%s %v\n", real, statAt(root, real))
			}
		}
		d.close()
	}
	for _, k := range KeyPaths(want) {
		real, err := resolve(root, k)
		if err != nil {
			continue // a missing key is a difference
		}
		fmt.Fprintf(sum, "%s %s %v\n", k, real, statAt(root, real))
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// decides reports whether anybody reads a file of this name there. CRI-O takes drop-ins of any name.
func decides(dir, name string) bool {
	switch path.Ext(name) {
	case ".yaml", ".json", ".conf":
		return !strings.HasPrefix(name, ".")
	}
	return dir == "/etc/crio/crio.conf.d"
}

func statAt(root *os.Root, p string) stat {
	d, err := openFolder(root, path.Dir(p))
	if err != nil {
		return stat{}
	}
	defer d.close()
	return d.stat(path.Base(p))
}
