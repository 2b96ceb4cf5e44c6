// Package crds pins the version of github.com/openshift/api whose CustomResourceDefinitions the lab installs. They are
// read from the module cache: payload-manifests/crds, and config/v1/zz_generated.crd-manifests.
package crds

// Any package of the module keeps the requirement; this one has no code.
import _ "github.com/openshift/api/machineconfiguration/v1/zz_generated.crd-manifests"
