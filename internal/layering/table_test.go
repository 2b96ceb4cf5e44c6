package layering

// table says of every package what it is about, and what it may import. Subject and Pure are written by hand; new
// rows and the imports come from go test ./internal/layering -update, and the review of its difference.
var table = []row{
	{
		Package: "agent",
		Subject: "the loop of the resident",
		Imports: []string{
			"agent/child", "agent/disk", "agent/found", "agent/watch", "internal/bounded",
			"internal/desired", "internal/judge", "internal/trust", "internal/verdict",
		},
		Modules: []string{
			"golang.org/x/sys", "golang.org/x/time",
		},
	},
	{
		Package: "agent/child",
		Subject: "the unprivileged, short-lived `nodetrust`",
		Modules: []string{
			"golang.org/x/sys",
		},
	},
	{
		Package: "agent/disk",
		Subject: "compare and replace files below an `*os.Root`",
		Imports: []string{
			"internal/hostfs", "internal/judge", "internal/policy", "internal/registriesd", "internal/trust",
		},
		Modules: []string{
			"github.com/google/renameio/v2", "golang.org/x/sys",
		},
	},
	{
		Package: "agent/found",
		Subject: "what the host had before the first write, and the way back to it",
		Imports: []string{
			"agent/disk", "internal/bounded", "internal/trust",
		},
	},
	{
		Package: "agent/node",
		Subject: "annotations of the own node",
		Imports: []string{
			"internal/judge",
		},
		Modules: []string{
			"k8s.io/apimachinery", "k8s.io/client-go",
		},
	},
	{
		Package: "agent/watch",
		Subject: "hints that something changed",
		Modules: []string{
			"github.com/fsnotify/fsnotify", "golang.org/x/sys",
		},
	},
	{
		Package: "cmd/nodetrust",
		Subject: "the CLI, one file a command",
		Imports: []string{
			"internal/audit", "internal/audit/cache", "internal/audit/page", "internal/audit/sources",
			"internal/bounded", "internal/cli", "internal/cluster", "internal/cluster/mco",
			"internal/cluster/place", "internal/cluster/rollout", "internal/cri", "internal/diff",
			"internal/judge", "internal/lint", "internal/lookaside", "internal/openpgp",
			"internal/openpgp/key", "internal/outside", "internal/policy", "internal/policy/compare",
			"internal/probe", "internal/release", "internal/source", "internal/trust", "internal/verdict",
			"internal/verify", "internal/verify/checksums", "internal/verify/detached",
			"internal/verify/explain", "internal/verify/locate", "internal/verify/mechanism", "render",
			"templates",
		},
		Modules: []string{
			"github.com/google/renameio/v2", "github.com/spf13/cobra", "github.com/spf13/pflag",
			"go.yaml.in/yaml/v3",
		},
	},
	{
		Package: "cmd/nodetrust-agent",
		Subject: "flags and wiring of the agent",
		Imports: []string{
			"agent", "agent/child", "agent/node", "internal/judge",
		},
	},
	{
		Package: "deploy/sbom",
		Subject: "what is linked into a program, read out of the program itself, as SPDX",
	},
	{
		Package: "hack/outdated",
		Subject: "`make outdated`: newer releases of Go and of the modules that security rests on",
	},
	{
		Package: "hack/readers",
		Subject: "`make readers`: what old versions of the image library load, recorded anew",
		Imports: []string{
			"internal/fixture",
		},
	},
	{
		Package: "hack/vuln",
		Subject: "`make vuln`: govulncheck, with what it says in one table",
	},
	{
		Package: "internal/audit",
		Subject: "images in use, each judged once; what they need; the report",
		Pure:    true,
		Imports: []string{
			"internal/outside", "internal/policy", "internal/ref", "internal/verdict",
		},
	},
	{
		Package: "internal/audit/cache",
		Subject: "verdicts kept from one audit to the next",
		Imports: []string{
			"internal/verdict",
		},
		Modules: []string{
			"github.com/google/renameio/v2",
		},
	},
	{
		Package: "internal/audit/page",
		Subject: "the report as one page of HTML",
		Pure:    true,
		Imports: []string{
			"internal/audit", "internal/verdict",
		},
	},
	{
		Package: "internal/audit/sources",
		Subject: "images in use: of a cluster, a CRI runtime, static pods, podman, a catalog",
		Imports: []string{
			"internal/audit", "internal/bounded", "internal/cluster", "internal/cri", "internal/outside",
			"internal/ref",
		},
		Modules: []string{
			"go.yaml.in/yaml/v3", "google.golang.org/grpc", "k8s.io/cri-api",
		},
	},
	{
		Package: "internal/bounded",
		Subject: "files and streams read whole, up to a limit",
	},
	{
		Package: "internal/cli",
		Subject: "what a terminal shows: tables, progress, colours, messages, exit statuses",
		Imports: []string{
			"internal/outside",
		},
		Modules: []string{
			"github.com/spf13/cobra", "github.com/spf13/pflag", "go.yaml.in/yaml/v3", "golang.org/x/term",
		},
	},
	{
		Package: "internal/cluster",
		Subject: "what the CLI reads from a cluster: agents' reports, whether agents are alive, rollouts",
		Imports: []string{
			"internal/bounded", "internal/cluster/mco", "internal/cluster/rollout", "internal/desired",
			"internal/judge", "internal/ref", "internal/trust",
		},
		Modules: []string{
			"github.com/opencontainers/go-digest", "k8s.io/apimachinery", "k8s.io/client-go",
		},
	},
	{
		Package: "internal/cluster/mco",
		Subject: "what the Machine Config Operator makes of a pool's MachineConfigs, from a dump",
		Pure:    true,
		Imports: []string{
			"internal/bounded", "internal/desired", "internal/policy", "internal/policy/compare",
			"internal/registriesd", "internal/trust",
		},
		Modules: []string{
			"go.yaml.in/yaml/v3", "k8s.io/apimachinery",
		},
	},
	{
		Package: "internal/cluster/place",
		Subject: "a MachineConfig put where it has an effect in a pool, or what is in its way",
		Imports: []string{
			"internal/cluster/mco", "internal/registriesd", "internal/trust", "internal/verify/library",
			"render",
		},
	},
	{
		Package: "internal/cluster/rollout",
		Subject: "whether a MachineConfig has reached a pool's nodes and is enforced there, from what was read",
		Pure:    true,
		Imports: []string{
			"internal/judge", "internal/trust",
		},
	},
	{
		Package: "internal/cri",
		Subject: "the connection to a runtime's socket",
		Modules: []string{
			"google.golang.org/grpc",
		},
	},
	{
		Package: "internal/desired",
		Subject: "what render wrote, read back",
		Imports: []string{
			"internal/bounded", "internal/trust",
		},
		Modules: []string{
			"github.com/coreos/ignition/v2", "github.com/coreos/vcontext",
			"github.com/vincent-petithory/dataurl", "go.yaml.in/yaml/v3",
		},
	},
	{
		Package: "internal/diff",
		Subject: "policies of hosts, pools, configs and files, loaded and compared",
		Imports: []string{
			"internal/cluster/mco", "internal/desired", "internal/hostfs", "internal/lint",
			"internal/policy/compare", "internal/source", "internal/trust",
		},
	},
	{
		Package: "internal/fixture",
		Subject: "keys, signatures, registry and lookaside for tests",
		Modules: []string{
			"github.com/google/go-containerregistry",
		},
	},
	{
		Package: "internal/hostfs",
		Subject: "files below the root directory of a host, links followed as there",
		Imports: []string{
			"internal/bounded", "internal/registriesd",
		},
	},
	{
		Package: "internal/judge",
		Subject: "differences + canaries → state",
		Pure:    true,
		Imports: []string{
			"internal/outside", "internal/policy", "internal/verdict",
		},
	},
	{
		Package: "internal/layering",
		Subject: "tests alone: who may import what, the walks of this page, the width of lines",
	},
	{
		Package: "internal/lint",
		Subject: "findings about files, and whether a reader loads them",
		Imports: []string{
			"internal/cluster/mco", "internal/desired", "internal/hostfs", "internal/openpgp/key",
			"internal/outside", "internal/policy", "internal/policy/compare", "internal/registriesd",
			"internal/source", "internal/trust", "internal/verify/library",
		},
		Modules: []string{
			"github.com/BurntSushi/toml", "go.yaml.in/yaml/v3",
		},
	},
	{
		Package: "internal/lookaside",
		Subject: "signatures collected for nodes without a network, and whether they are enough",
		Imports: []string{
			"internal/bounded", "internal/policy", "internal/ref", "internal/release", "internal/trust",
			"internal/verdict", "internal/verify", "internal/verify/locate", "internal/verify/mechanism",
		},
		Modules: []string{
			"github.com/opencontainers/go-digest",
		},
	},
	{
		Package: "internal/openpgp",
		Subject: "what OpenPGP signatures claim of themselves; nothing is judged",
		Pure:    true,
		Imports: []string{
			"internal/bounded",
		},
		Modules: []string{
			"github.com/ProtonMail/go-crypto", "github.com/opencontainers/go-digest",
		},
	},
	{
		Package: "internal/openpgp/key",
		Subject: "key files: what public keys are in them",
		Pure:    true,
		Imports: []string{
			"internal/bounded",
		},
	},
	{
		Package: "internal/outside",
		Subject: "text from servers, files and clusters on its way to a terminal, a report or a message: printable, bounded, without secrets",
		Pure:    true,
	},
	{
		Package: "internal/policy",
		Subject: "policy.json: its grammar, the scopes that are looked up, identities, and two policies merged",
		Pure:    true,
		Imports: []string{
			"internal/ref",
		},
	},
	{
		Package: "internal/policy/compare",
		Subject: "what policies demand, compared",
		Pure:    true,
		Imports: []string{
			"internal/openpgp/key", "internal/policy",
		},
	},
	{
		Package: "internal/probe",
		Subject: "canaries through the node's runtime and through `verify`",
		Imports: []string{
			"internal/bounded", "internal/cri", "internal/hostfs", "internal/judge", "internal/lint",
			"internal/outside", "internal/policy", "internal/trust", "internal/verdict",
		},
		Modules: []string{
			"golang.org/x/sys", "google.golang.org/grpc", "k8s.io/cri-api",
		},
	},
	{
		Package: "internal/ref",
		Subject: "references of images taken apart as text",
		Pure:    true,
	},
	{
		Package: "internal/registriesd",
		Subject: "the grammar of registries.d: parsed, merged, looked up",
		Pure:    true,
		Modules: []string{
			"go.yaml.in/yaml/v3",
		},
	},
	{
		Package: "internal/release",
		Subject: "OpenShift releases: signature stores, and what a release image vouches for",
		Imports: []string{
			"internal/bounded", "internal/hostfs", "internal/openpgp", "internal/ref",
			"internal/registriesd", "internal/trust", "internal/verdict", "internal/verify",
			"internal/verify/detached", "internal/verify/library", "internal/verify/locate",
		},
		Modules: []string{
			"github.com/opencontainers/go-digest", "go.yaml.in/yaml/v3",
		},
	},
	{
		Package: "internal/source",
		Subject: "what a user names on the command line: told apart and read, a pipe or a file",
		Imports: []string{
			"internal/bounded", "internal/cluster/mco", "internal/desired", "internal/policy",
			"internal/registriesd", "internal/trust",
		},
		Modules: []string{
			"github.com/BurntSushi/toml", "go.yaml.in/yaml/v3",
		},
	},
	{
		Package: "internal/trust",
		Subject: "the trust config: schema, parsing, validation, readers, file set, digest",
		Pure:    true,
		Imports: []string{
			"internal/bounded", "internal/openpgp/key", "internal/policy", "internal/ref",
			"internal/registriesd", "internal/verdict", "templates",
		},
		Modules: []string{
			"go.yaml.in/yaml/v3",
		},
	},
	{
		Package: "internal/verdict",
		Subject: "the answers, as data",
		Pure:    true,
		Imports: []string{
			"internal/policy",
		},
	},
	{
		Package: "internal/verify",
		Subject: "image + policy → verdict. With what is below it the only importer of the image library",
		Imports: []string{
			"internal/hostfs", "internal/openpgp/key", "internal/outside", "internal/policy",
			"internal/registriesd", "internal/verdict", "internal/verify/configuration",
			"internal/verify/explain", "internal/verify/failure", "internal/verify/fetch",
			"internal/verify/fingerprint", "internal/verify/hostlimit", "internal/verify/layer",
			"internal/verify/library", "internal/verify/locate", "internal/verify/mechanism",
			"internal/verify/requirement", "internal/verify/secondlook", "internal/verify/signatures",
			"internal/verify/traffic",
		},
		Modules: []string{
			"github.com/opencontainers/go-digest", "go.podman.io/image/v5",
		},
	},
	{
		Package: "internal/verify/checksums",
		Subject: "signed lists of checksums, and the files that they name",
		Imports: []string{
			"internal/bounded", "internal/openpgp", "internal/verdict", "internal/verify/mechanism",
		},
	},
	{
		Package: "internal/verify/configuration",
		Subject: "policy.json, registries.d, registries.conf, certificates and keys of a host, copied for the image library",
		Imports: []string{
			"internal/bounded", "internal/hostfs", "internal/openpgp/key", "internal/policy",
			"internal/registriesd", "internal/trust", "internal/verdict", "internal/verify/failure",
			"internal/verify/library",
		},
		Modules: []string{
			"github.com/BurntSushi/toml", "go.podman.io/image/v5",
		},
	},
	{
		Package: "internal/verify/detached",
		Subject: "one signature file, judged without an image",
		Imports: []string{
			"internal/openpgp", "internal/openpgp/key", "internal/policy", "internal/verdict",
			"internal/verify/mechanism", "internal/verify/requirement",
		},
		Modules: []string{
			"github.com/opencontainers/go-digest", "go.podman.io/image/v5",
		},
	},
	{
		Package: "internal/verify/explain",
		Subject: "verdicts in words: message, hint and cause, and the story of what led to them",
		Imports: []string{
			"internal/outside", "internal/registriesd", "internal/verdict", "internal/verify/configuration",
			"internal/verify/failure", "internal/verify/fetch", "internal/verify/library",
			"internal/verify/locate", "internal/verify/mechanism", "internal/verify/signatures",
		},
		Modules: []string{
			"go.podman.io/image/v5",
		},
	},
	{
		Package: "internal/verify/failure",
		Subject: "the reason of a verdict for an error",
		Imports: []string{
			"internal/verdict", "internal/verify/secondlook",
		},
		Modules: []string{
			"github.com/docker/distribution", "go.podman.io/image/v5",
		},
	},
	{
		Package: "internal/verify/fetch",
		Subject: "manifests and signatures of many images, read as the image library does",
		Imports: []string{
			"internal/hostfs", "internal/openpgp", "internal/outside", "internal/registriesd",
			"internal/verify/failure", "internal/verify/hostlimit", "internal/verify/library",
			"internal/verify/traffic",
		},
		Modules: []string{
			"github.com/docker/distribution", "github.com/opencontainers/go-digest", "go.podman.io/image/v5",
		},
	},
	{
		Package: "internal/verify/fingerprint",
		Subject: "values, files and directories hashed together with this program",
		Imports: []string{
			"internal/verify/mechanism",
		},
	},
	{
		Package: "internal/verify/hostlimit",
		Subject: "requests to HTTP hosts: bounded, with pauses where a host asks for one, nothing twice",
	},
	{
		Package: "internal/verify/layer",
		Subject: "a layer read as a tar stream, within limits",
		Modules: []string{
			"github.com/opencontainers/go-digest",
		},
	},
	{
		Package: "internal/verify/library",
		Subject: "where the image library looks, and what it loads: files, scopes, lookasides, directories",
		Imports: []string{
			"internal/registriesd", "internal/verify/failure",
		},
		Modules: []string{
			"github.com/opencontainers/go-digest", "go.podman.io/image/v5",
		},
	},
	{
		Package: "internal/verify/locate",
		Subject: "IMAGE arguments, and where an image lies: registry and mirrors, directory, storage of a host",
		Imports: []string{
			"internal/hostfs", "internal/verify/failure", "internal/verify/fetch", "internal/verify/library",
		},
		Modules: []string{
			"github.com/BurntSushi/toml", "github.com/opencontainers/go-digest", "go.podman.io/image/v5",
		},
	},
	{
		Package: "internal/verify/mechanism",
		Subject: "the OpenPGP mechanism of this build, gpg or pure Go: what it says of a signature, and why; sets of keys that are imported once",
		Imports: []string{
			"internal/openpgp", "internal/openpgp/key", "internal/verdict", "internal/verify/failure",
			"internal/verify/library",
		},
		Modules: []string{
			"github.com/ProtonMail/go-crypto", "github.com/proglottis/gpgme", "go.podman.io/image/v5",
		},
	},
	{
		Package: "internal/verify/mutation",
		Subject: "tests alone: mutants of honest images before the image library, `verify` and `audit`",
	},
	{
		Package: "internal/verify/requirement",
		Subject: "the section of a policy for an image, its keys, and the image library's word on each requirement",
		Imports: []string{
			"internal/openpgp", "internal/openpgp/key", "internal/policy", "internal/verdict",
			"internal/verify/configuration", "internal/verify/explain", "internal/verify/failure",
			"internal/verify/library", "internal/verify/mechanism", "internal/verify/signatures",
		},
		Modules: []string{
			"go.podman.io/image/v5",
		},
	},
	{
		Package: "internal/verify/secondlook",
		Subject: "an accepted image looked at once more, by rules written down a second time",
		Pure:    true,
	},
	{
		Package: "internal/verify/signatures",
		Subject: "the signatures of an image as they were read, within limits",
		Imports: []string{
			"internal/hostfs", "internal/openpgp", "internal/verdict", "internal/verify/failure",
			"internal/verify/library", "internal/verify/locate", "internal/verify/traffic",
		},
	},
	{
		Package: "internal/verify/traffic",
		Subject: "what the image library asks of the network: seen, and bounded",
		Modules: []string{
			"github.com/sirupsen/logrus", "go.podman.io/image/v5", "golang.org/x/sys",
		},
	},
	{
		Package: "render",
		Subject: "file set → Butane, MachineConfig, Ignition, ConfigMap, host bundle",
		Pure:    true,
		Imports: []string{
			"internal/desired", "internal/registriesd", "internal/trust", "templates",
		},
		Modules: []string{
			"github.com/coreos/butane", "go.yaml.in/yaml/v3",
		},
	},
	{
		Package: "templates",
		Subject: "embedded frames, comments, presets, the canary key",
	},
}
