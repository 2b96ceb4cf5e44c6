package cluster

import (
	"context"
	"encoding/json"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodetrust/nodetrust/internal/cluster/mco"
)

const (
	// dumpPage is the number of objects of one answer: a rendered MachineConfig has about 250 kB, at most 1.5 MB.
	dumpPage = "20"
	// maxObjects and maxLive bound a list, in objects and bytes. Only a small part of it is kept.
	maxObjects = 20_000
	maxLive    = 1 << 30
)

const (
	mcoGroup    = "machineconfiguration.openshift.io/v1"
	configGroup = "config.openshift.io/v1"
	alphaGroup  = "config.openshift.io/v1alpha1" // image policies before OpenShift 4.20
)

// dumped are the kinds of a dump, in the order of reading. Of several API versions the first that the cluster has is
// read.
var dumped = []struct {
	kind, plural string
	versions     []string
	// needed is false for kinds that the cluster may lack or the caller may not read.
	needed bool
}{
	{"MachineConfig", "machineconfigs", []string{mcoGroup}, true},
	{"MachineConfigPool", "machineconfigpools", []string{mcoGroup}, true},
	{"ClusterVersion", "clusterversions", []string{configGroup}, false},
	{"Image", "images", []string{configGroup}, false},
	{"ClusterImagePolicy", "clusterimagepolicies", []string{configGroup, alphaGroup}, false},
	{"ImagePolicy", "imagepolicies", []string{configGroup, alphaGroup}, false},
}

// Dump reads what `oc get mc,mcp,clusterversion,images.config,clusterimagepolicies -o yaml` shows, and the
// ImagePolicies of all namespaces. Unread are the kinds that the caller may not read; kinds that the cluster lacks are
// left out. ErrNoPools means that no Machine Config Operator runs there.
func (c *Client) Dump(ctx context.Context) (d *mco.Dump, unread []string, err error) {
	d = &mco.Dump{}
	for _, k := range dumped {
		err := error(&apierrors.StatusError{ErrStatus: metav1.Status{Reason: metav1.StatusReasonNotFound}})
		for _, version := range k.versions {
			if err = c.addAll(ctx, d, version, k.plural, k.kind); !apierrors.IsNotFound(err) {
				break
			}
		}
		switch {
		case apierrors.IsNotFound(err) && !k.needed:
		case apierrors.IsNotFound(err):
			return nil, nil, ErrNoPools
		case IsForbidden(err) && !k.needed:
			unread = append(unread, k.kind)
		case err != nil:
			return nil, nil, fmt.Errorf("listing objects of kind %s: %w", k.kind, err)
		}
	}
	if len(d.Configs) == 0 {
		return nil, nil, ErrNoPools
	}
	return d, unread, nil
}

// addAll adds all objects of a kind to the dump, holding one page at a time.
func (c *Client) addAll(ctx context.Context, d *mco.Dump, version, plural, kind string) error {
	before := *d
	return retry(func() error {
		*d = before
		query := map[string]string{"limit": dumpPage}
		objects, size := 0, 0
		for {
			list, err := readJSON[listOf[json.RawMessage]](ctx, c, "/apis/"+version+"/"+plural, wholeObject, query, maxPage)
			if err != nil {
				return err
			}
			for _, item := range list.Items {
				objects, size = objects+1, size+len(item)
				if objects > maxObjects || size > maxLive {
					return fmt.Errorf("more than %d objects or %d bytes", maxObjects, maxLive)
				}
				if err := d.Add(typed(item, version, kind)); err != nil {
					return err
				}
			}
			if list.Metadata.Continue == "" {
				return nil
			}
			query["continue"] = list.Metadata.Continue
		}
	})
}
