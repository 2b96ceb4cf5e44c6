# nodetrust. `make help` lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

GO ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)

# The image library's transports and storage drivers that nothing here uses stay out of the program.
TAGS := containers_image_docker_daemon_stub,containers_image_storage_stub,exclude_graphdriver_btrfs
# Without cgo there is no gpgme: the pure-Go OpenPGP mechanism judges, and says so.
PURE_TAGS := $(TAGS),containers_image_openpgp
BUILD := $(GO) build -trimpath -ldflags '-s -w -X main.version=$(VERSION)'

GOFUMPT := mvdan.cc/gofumpt@v0.12.0
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK := golang.org/x/vuln/cmd/govulncheck@v1.9.0
# Of the unit tests' output only what a reader wants: the packages' lines, failures, skips with their reasons, the sum.
GOTESTSUM := $(GO) run gotest.tools/gotestsum@v1.13.0 --format pkgname-and-test-fails --format-hide-empty-pkg --

# The packages whose tests link an OpenPGP mechanism: all others are the same without cgo.
PURE_PACKAGES := ./internal/openpgp ./internal/verify $(addprefix ./internal/verify/,checksums detached mechanism mutation)

export NODETRUST_REALDATA

.PHONY: help deps deps-build deps-test build build-pure test test-unit test-pure e2e cluster lab lab-build lab-down image sbom manifests demo bench soak readers vuln outdated lint fmt clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

deps: ## install what is missing for building and, as root, for all tests
	@hack/deps.sh

deps-build:
	@hack/deps.sh build

deps-test:
	@if [ "$$(id -u)" = 0 ]; then hack/deps.sh build test; else hack/deps.sh build; fi

build: deps-build ## bin/nodetrust (cgo, gpgme) and bin/nodetrust-agent (static)
	CGO_ENABLED=1 $(BUILD) -tags '$(TAGS)' -o bin/nodetrust ./cmd/nodetrust
	CGO_ENABLED=0 $(BUILD) -o bin/nodetrust-agent ./cmd/nodetrust-agent

build-pure: ## bin/nodetrust-pure, without cgo: answers unknown where only gpgme could judge
	CGO_ENABLED=0 $(BUILD) -tags '$(PURE_TAGS)' -o bin/nodetrust-pure ./cmd/nodetrust

test: test-unit test-pure e2e $(if $(filter all,$(NODETRUST_E2E)),cluster) ## all tests; as root they include a real CRI-O and podman, with NODETRUST_E2E=all a real cluster

test-unit: deps-test ## unit tests; the agent's with the race detector
	CGO_ENABLED=1 $(GOTESTSUM) -timeout 30m -race ./agent/...
	CGO_ENABLED=1 $(GOTESTSUM) -timeout 30m -tags '$(TAGS)' $$($(GO) list ./... | grep -v /agent)

test-pure: build-pure ## the pure-Go build and what it answers
	CGO_ENABLED=0 NODETRUST_MUTANTS=$(or $(NODETRUST_MUTANTS),2000) $(GOTESTSUM) -timeout 30m -tags '$(PURE_TAGS)' $(PURE_PACKAGES)

e2e: deps-test ## the tests of the whole, with real runtimes (root; CRI-O is built once and cached)
	cd e2e && $(GO) vet ./... && $(GO) test -v -count=1 -timeout 60m $(E2EFLAGS) . ./lab ./differential

cluster: deps-test ## the tests on a real cluster of two nodes (root on Debian; Kubernetes is built once and cached)
	cd e2e && $(GO) vet ./cluster && $(GO) test -v -count=1 -parallel 4 -timeout 90m $(CLUSTERFLAGS) ./cluster

lab: deps-test ## bring up the tests' cluster and say how to use kubectl on it; ^C or lab-down ends it
	@mkdir -p bin && cd e2e && $(GO) build -o ../bin/lab ./cmd/lab && exec ../bin/lab up

lab-build: deps-test ## build what the lab keeps: CRI-O, Kubernetes, and the roots of Debian packages that the image is made from
	cd e2e && $(GO) run ./cmd/lab build

lab-down: ## end the cluster that `make lab` brought up, and sweep what a killed one left
	@mkdir -p bin && cd e2e && $(GO) build -o ../bin/lab ./cmd/lab && exec ../bin/lab down

image: ## the agents' image with podman (IMAGE=nodetrust BUILDER=… BASE=… PODMANFLAGS=…)
	podman build --timestamp 0 --build-arg VERSION='$(VERSION)' $(if $(BUILDER),--build-arg BUILDER='$(BUILDER)') $(if $(BASE),--build-arg BASE='$(BASE)') $(PODMANFLAGS) -t '$(or $(IMAGE),nodetrust)' .

sbom: build ## dist/*.spdx.json: what is linked into each program, read out of the program itself
	mkdir -p dist
	$(GO) run ./deploy/sbom -o dist bin/nodetrust bin/nodetrust-agent

manifests: ## check deploy/ with kustomize, the API server's types and CEL, and Prometheus' rule engine
	cd deploy/test && $(GO) vet ./... && $(GO) test -count=1 ./...

demo: build ## the main job on this machine, without root or cluster
	cd e2e && $(GO) run ./demo -bin ../bin

bench: build ## the figures of docs/benchmarks.md
	cd e2e && $(GO) run ./bench -o ../docs/benchmarks.md

soak: build ## nodetrust against CRI-O and podman (CASES=1000, root), mutants of images (MUTANTS=1000000), lint and diff (FILES=10000) against the library, then every fuzz test (SOAK=1m each)
	GO='$(GO)' MUTANTS='$(or $(MUTANTS),1000000)' FILES='$(or $(FILES),10000)' CASES='$(or $(CASES),1000)' hack/soak.sh $(or $(SOAK),1m) '$(TAGS)'

readers: ## record anew what old versions of the image library load, and what fools them (internal/lint/testdata/readers.json, internal/trust/testdata/advisories.json; from the module proxy)
	$(GO) run ./hack/readers

vuln: ## known vulnerabilities in all modules, with govulncheck; says so, and fails, where its database is not reachable (VULNDB=URL)
	@GOBIN='$(CURDIR)/bin' $(GO) install $(GOVULNCHECK)
	@$(GO) run ./hack/vuln -tags '$(TAGS)' -govulncheck '$(CURDIR)/bin/govulncheck' -db '$(VULNDB)'

outdated: ## newer releases of Go and of the modules that security rests on; fails if one has a fix that is not used
	@$(GO) run ./hack/outdated

lint: deps-build ## gofumpt, go vet and staticcheck, versions pinned
	@out=$$($(GO) run $(GOFUMPT) -l $$(git ls-files '*.go')); [ -z "$$out" ] || { echo "not gofumpt-clean:"; echo "$$out"; exit 1; }
	$(GO) vet -tags '$(TAGS)' ./...
	$(GO) run $(STATICCHECK) -tags '$(TAGS)' ./...
	cd e2e && $(GO) vet ./... && $(GO) run $(STATICCHECK) ./...

fmt: ## format with gofumpt
	$(GO) run $(GOFUMPT) -w $$(git ls-files '*.go')

clean: ## remove what was built
	rm -rf bin
