package sources

import (
	"context"
	"fmt"
	"os"
	"os/exec"

	"github.com/nodetrust/nodetrust/internal/audit"
	"github.com/nodetrust/nodetrust/internal/cluster"
	"github.com/nodetrust/nodetrust/internal/cri"
	"github.com/nodetrust/nodetrust/internal/outside"
)

// NoneError says that nothing on this host tells which images are in use.
type NoneError struct {
	// Socket is where a CRI runtime was looked for.
	Socket string
}

func (e *NoneError) Error() string {
	return fmt.Sprintf("no cluster, no %s and no podman here: nothing says which images are in use", e.Socket)
}

// CollectDefault lists the images of the cluster if there is one, else of this host's CRI runtime, else of its podman.
// Note takes a line that says which. An error that comes with an inventory says what could not be read; without one it
// is why there is none, a *NoneError if no source was found.
func CollectDefault(ctx context.Context, o Options, canonical func(image string) (string, error),
	note func(line string),
) (*audit.Inventory, error) {
	configured, inventory, err := collect(ctx, Cluster, o, canonical)
	if err == nil || inventory.Len() > 0 {
		note("images of the cluster; others with --images-from")
		return inventory, err
	}
	if cluster.IsForbidden(err) || ctx.Err() != nil || o.Cluster != (cluster.Config{}) {
		return nil, err
	}
	unanswered := err
	note("no cluster: " + outside.Text(err.Error()))
	socket, source := cri.SocketPath(o.CRISocket), ""
	if _, err := os.Stat(socket); err == nil {
		source = CRI
	} else if _, err := exec.LookPath("podman"); err == nil {
		source = Podman
	}
	if source == "" {
		return nil, &NoneError{socket}
	}
	note("images of " + source + " on this host; others with --images-from")
	_, inventory, err = collect(ctx, source, o, canonical)
	if err != nil && inventory.Len() == 0 {
		return nil, err
	}
	if configured { // its images may be in use here, too
		inventory.Lacks("the cluster of the kubeconfig didn't answer: " + unanswered.Error())
	}
	return inventory, err
}

// collect reads one source. It was opened if it could be asked at all.
func collect(ctx context.Context, name string, o Options, canonical func(image string) (string, error)) (opened bool,
	_ *audit.Inventory, _ error,
) {
	s, err := Open(name, o)
	if err != nil {
		return false, &audit.Inventory{}, err
	}
	inventory, err := audit.Collect(ctx, canonical, audit.Named{Name: name, Source: s})
	return true, inventory, err
}
