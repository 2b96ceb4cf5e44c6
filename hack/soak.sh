#!/usr/bin/env bash
# Runs every fuzz test of the module for a while, one after another, after holding verify and audit against CRI-O and
# podman on many cases (CASES, as root) and against the image library on many mutants of honest images (MUTANTS), lint against
# the library on many mutated files (FILES), and diff against it on as many pairs of policies; other ones each time, unless
# NODETRUST_SEED is set:
#
#   CASES=1000 MUTANTS=1000000 FILES=10000 hack/soak.sh 10m TAGS
set -euo pipefail
for_each=$1 tags=$2
GO=${GO:-go}
echo "== verify and audit against CRI-O and podman"
(cd e2e && NODETRUST_DIFFERENTIAL=${CASES:-1000} NODETRUST_SEED=${NODETRUST_SEED:-$(date +%s)} $GO test -count=1 -timeout 60m -v ./differential)
echo "== verify and audit against the library and what was signed"
NODETRUST_MUTANTS=${MUTANTS:-1000000} NODETRUST_SEED=${NODETRUST_SEED:-$(date +%s)} CGO_ENABLED=0 \
	$GO test -tags "$tags,containers_image_openpgp" -count=1 -timeout 0 -v -run '^TestMutants$' ./internal/verify/mutation
echo "== lint against the library"
NODETRUST_SOAK_FILES=${FILES:-10000} $GO test -tags "$tags" -count=1 -v -run 'Agrees?WithLibrary$|^TestMutated' ./internal/lint
echo "== diff against the library"
NODETRUST_PAIRS=${FILES:-10000} NODETRUST_SEED=${NODETRUST_SEED:-$(date +%s)} $GO test -tags "$tags" -count=1 -timeout 60m -v -run '^TestStrength_library$' ./internal/verify
$GO list -tags "$tags" -f '{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}' ./... | while read -r pkg; do
	for fuzz in $($GO test -tags "$tags" -list '^Fuzz' "$pkg" | grep '^Fuzz' || true); do
		echo "== $pkg $fuzz"
		$GO test -tags "$tags" -run '^$' -fuzz "^$fuzz\$" -fuzztime "$for_each" -fuzzminimizetime 10x "$pkg" </dev/null
	done
done
