package probe

import (
	"context"
	"os/exec"
	"strings"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodetrust/nodetrust/internal/cri"
	"github.com/nodetrust/nodetrust/internal/judge"
	"github.com/nodetrust/nodetrust/internal/trust"
)

const versionTimeout = 10 * time.Second

// Runtimes returns the versions of the runtimes that Run would use, and what is known of their verifiers. It leaves
// out a runtime without a name, about whose verifier this says nothing.
func Runtimes(ctx context.Context, o Options) []judge.Runtime {
	var out []judge.Runtime
	add := func(name, version string) {
		if r := trust.LookupRuntime(name, version); r.Name != "" {
			out = append(out, judge.Runtime(r))
		}
	}
	ofCRI, ofPodman := o.runtimes()
	if ofCRI {
		add(criVersion(ctx, o.CRISocket))
	}
	if ofPodman {
		add(Podman, podmanVersion(ctx, o))
	}
	return out
}

func criVersion(ctx context.Context, socket string) (name, version string) {
	ctx, cancel := context.WithTimeout(ctx, versionTimeout)
	defer cancel()
	conn, err := cri.Dial(socket)
	if err != nil {
		return "", ""
	}
	defer conn.Close()
	resp, err := runtimeapi.NewRuntimeServiceClient(conn).Version(ctx, &runtimeapi.VersionRequest{Version: "v1"})
	if err != nil {
		return "", ""
	}
	return resp.GetRuntimeName(), resp.GetRuntimeVersion()
}

func podmanVersion(ctx context.Context, o Options) string {
	p, err := newPodman(o)
	if err != nil {
		return ""
	}
	defer p.close()
	ctx, cancel := context.WithTimeout(ctx, versionTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "podman", "--version")
	cmd.Dir, cmd.Env, cmd.WaitDelay = p.dir, p.environ(), time.Second
	stdout := &tail{max: 1 << 10}
	cmd.Stdout = stdout
	if cmd.Run() != nil {
		return ""
	}
	version, ok := strings.CutPrefix(strings.TrimSpace(stdout.String()), "podman version ")
	if !ok {
		return ""
	}
	return version
}
