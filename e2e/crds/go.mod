module github.com/nodetrust/nodetrust/e2e/crds

go 1.26.0

require github.com/openshift/api v0.0.0-20260420151639-34e60874783e

require github.com/prometheus-operator/prometheus-operator v0.85.0 // indirect

// Keeps the requirement: of that module only YAML is read, and this is its one package that needs no other module.
tool github.com/prometheus-operator/prometheus-operator/example/alertmanager-webhook
