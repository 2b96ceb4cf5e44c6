package verify

import (
	"context"
	"net"
	"net/http/httptrace"
	"slices"
	"sync"

	"go.podman.io/image/v5/docker"
	"go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/pkg/sysregistriesv2"
	"go.podman.io/image/v5/types"
)

// pullSources are the places that registries.conf makes a runtime try for the image, in order: mirrors, then the
// location itself. Policy goes by the name asked for, but lookaside and attachments by the place that served the manifest.
func (e *evaluation) pullSources() []types.ImageReference {
	named := e.target.content.DockerReference()
	if named == nil {
		return nil
	}
	registry, err := sysregistriesv2.FindRegistry(&e.sys, named.Name())
	if err != nil || registry == nil {
		return nil
	}
	sources, err := registry.PullSourcesFromReference(named)
	if err != nil {
		return nil
	}
	var out []types.ImageReference
	for _, s := range sources {
		if ref, err := docker.NewReference(s.Reference); err == nil {
			out = append(out, ref)
		}
	}
	return out
}

// hosts are the registries that may be asked for the image.
func (e *evaluation) hosts(sources []types.ImageReference) []string {
	var out []string
	for _, s := range append(sources, e.target.content) {
		if named := s.DockerReference(); named != nil {
			out = append(out, registryHost(named))
		}
	}
	return out
}

// registryHost is the host that is connected to for a reference.
func registryHost(named reference.Named) string {
	if d := reference.Domain(named); d != "docker.io" {
		return d
	}
	return "registry-1.docker.io"
}

// traceHosts records the hosts that are connected to under the returned context: the library doesn't tell which mirror
// it took.
func traceHosts(ctx context.Context) (context.Context, func() []string) {
	var mu sync.Mutex
	var hosts []string
	trace := &httptrace.ClientTrace{GetConn: func(hostPort string) {
		mu.Lock()
		defer mu.Unlock()
		hosts = append(hosts, hostPort)
	}}
	return httptrace.WithClientTrace(ctx, trace), func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(hosts)
	}
}

// chosenSource is the source whose host was connected to last. Of two on one host it is the first, which may be wrong:
// that changes what is reported of the lookaside, never the verdict.
func chosenSource(sources []types.ImageReference, hosts []string) types.ImageReference {
	if len(sources) == 1 {
		return sources[0]
	}
	for _, hostPort := range slices.Backward(hosts) {
		for _, s := range sources {
			domain := registryHost(s.DockerReference())
			host, _, err := net.SplitHostPort(hostPort)
			if domain == hostPort || err == nil && domain == host {
				return s
			}
		}
	}
	return nil
}
