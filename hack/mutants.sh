#!/usr/bin/env bash
# Puts the mutants of internal/verify/mutation before another version of the image library, in a copy of the work tree. A version
# that pulls what nobody signed fails:
#
#   hack/mutants.sh v5.42.0
set -euo pipefail
version=$1
GO=${GO:-go}
cd "$(dirname "$0")/.."
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
git ls-files -z --cached --others --exclude-standard | tar -c --null -T - | tar -x -C "$copy"
cd "$copy"
$GO mod edit -require "go.podman.io/image/v5@$version"
CGO_ENABLED=0 GOFLAGS=-mod=mod $GO test -count=1 -timeout 0 -v -run '^TestMutants$' ./internal/verify/mutation \
	-tags containers_image_docker_daemon_stub,containers_image_storage_stub,exclude_graphdriver_btrfs,containers_image_openpgp
