// Package crds pins the versions of the modules whose CustomResourceDefinitions the lab installs:
// github.com/openshift/api and github.com/prometheus-operator/prometheus-operator. They are read as files, from the
// module cache.
package crds

// Any package of the module keeps the requirement; this one has no code.
import _ "github.com/openshift/api/machineconfiguration/v1/zz_generated.crd-manifests"
