module github.com/nodetrust/nodetrust/e2e/crds

go 1.26.0

require github.com/openshift/api v0.0.0-20260420151639-34e60874783e
