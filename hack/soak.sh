#!/usr/bin/env bash
# Runs every fuzz test of the module for a while, one after another:
#
#   hack/soak.sh 10m TAGS
set -euo pipefail
for_each=$1 tags=$2
GO=${GO:-go}
$GO list -tags "$tags" -f '{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}' ./... | while read -r pkg; do
	for fuzz in $($GO test -tags "$tags" -list '^Fuzz' "$pkg" | grep '^Fuzz' || true); do
		echo "== $pkg $fuzz"
		$GO test -tags "$tags" -run '^$' -fuzz "^$fuzz\$" -fuzztime "$for_each" "$pkg" </dev/null
	done
done
