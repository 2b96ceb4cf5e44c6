package cluster

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/nodetrust/nodetrust/internal/ref"
)

const podsPath = "/api/v1/pods"

// Pod is the used part of a pod.
type Pod struct {
	Namespace, Name, Node string
	// Kind and Owner are the pod's owner as a user knows it: the Deployment instead of its ReplicaSet, the CronJob
	// instead of its Job. They are "Pod" and its name without an owner; "static-pod" and the name without the node's
	// for a static pod.
	Kind, Owner string
	// Static is set for the mirror of a pod that the kubelet runs from a file.
	Static bool
	// Agent is set for pods labelled as nodetrust's own.
	Agent bool
	// Images are those of all containers (init and ephemeral ones too) and image volumes.
	Images []PodImage
}

// StaticPod is the Kind of static pods.
const StaticPod = "static-pod"

// PodImage is an image of a pod.
type PodImage struct {
	// Reference is as the pod's spec has it.
	Reference string
	// Digest is the digest to which the runtime resolved the reference. It is empty if unknown, or known only for
	// another repository.
	Digest string
}

// Pods calls yield with every pod of the cluster, and returns an error of yield. It continues or restarts a list that
// expires between two pages, so a pod may come twice.
func (c *Client) Pods(ctx context.Context, yield func(Pod) error) error {
	err := eachOf(ctx, c, podsPath, "", func(p podObject) error { return yield(p.pod()) })
	if err != nil {
		return fmt.Errorf("listing pods: %w", err)
	}
	return nil
}

// podObject is the decoded part of a pod. The server can't select these fields: the metadata API and the table of pods
// have no images.
type podObject struct {
	Metadata struct {
		Name      string    `json:"name"`
		Namespace string    `json:"namespace"`
		Created   time.Time `json:"creationTimestamp"`
		Labels    struct {
			App  string `json:"app.kubernetes.io/name"`
			Hash string `json:"pod-template-hash"`
		} `json:"labels"`
		Annotations struct {
			Mirror string `json:"kubernetes.io/config.mirror"`
		} `json:"annotations"`
		Owners []struct {
			Kind       string `json:"kind"`
			Name       string `json:"name"`
			Controller bool   `json:"controller"`
		} `json:"ownerReferences"`
	} `json:"metadata"`
	Spec struct {
		NodeName   string      `json:"nodeName"`
		Init       []container `json:"initContainers"`
		Containers []container `json:"containers"`
		Ephemeral  []container `json:"ephemeralContainers"`
		Volumes    []struct {
			Image struct {
				Reference string `json:"reference"`
			} `json:"image"`
		} `json:"volumes"`
	} `json:"spec"`
	Status struct {
		Init       []containerStatus `json:"initContainerStatuses"`
		Containers []containerStatus `json:"containerStatuses"`
		Ephemeral  []containerStatus `json:"ephemeralContainerStatuses"`
	} `json:"status"`
}

type container struct {
	Name  string `json:"name"`
	Image string `json:"image"`
}

type containerStatus struct {
	Name    string `json:"name"`
	ImageID string `json:"imageID"`
}

func (o *podObject) pod() Pod {
	p := Pod{
		Namespace: o.Metadata.Namespace, Name: o.Metadata.Name, Node: o.Spec.NodeName,
		Static: o.Metadata.Annotations.Mirror != "",
		Agent:  agentLabel == "app.kubernetes.io/name="+o.Metadata.Labels.App,
	}
	p.Kind, p.Owner = o.owner()
	for _, set := range []struct {
		containers []container
		statuses   []containerStatus
	}{{o.Spec.Init, o.Status.Init}, {o.Spec.Containers, o.Status.Containers}, {o.Spec.Ephemeral, o.Status.Ephemeral}} {
		for _, c := range set.containers {
			image := PodImage{Reference: c.Image}
			for _, s := range set.statuses {
				if s.Name == c.Name {
					image.Digest = imageDigest(c.Image, s.ImageID)
				}
			}
			p.Images = append(p.Images, image)
		}
	}
	for _, v := range o.Spec.Volumes {
		if v.Image.Reference != "" {
			p.Images = append(p.Images, PodImage{Reference: v.Image.Reference})
		}
	}
	return p
}

// owner derives the owner from the pod alone: reading the owners would take a request each.
func (o *podObject) owner() (kind, name string) {
	m := &o.Metadata
	if m.Annotations.Mirror != "" {
		return StaticPod, strings.TrimSuffix(m.Name, "-"+o.Spec.NodeName)
	}
	kind, name = "Pod", m.Name
	for _, r := range m.Owners {
		if r.Controller {
			kind, name = r.Kind, r.Name
		}
	}
	switch kind {
	case "ReplicaSet":
		// The Deployment controller puts the hash into both.
		if deployment, ok := strings.CutSuffix(name, "-"+m.Labels.Hash); ok && m.Labels.Hash != "" {
			return "Deployment", deployment
		}
	case "Job":
		if cron, ok := cronJob(name, m.Created); ok {
			return "CronJob", cron
		}
	}
	return kind, name
}

// cronJob removes the scheduled time from the name of a CronJob's Job: minutes since 1970, shortly before the pod was
// made. Another number at the end, for example a date, stays.
func cronJob(job string, created time.Time) (string, bool) {
	i := strings.LastIndexByte(job, '-')
	if i < 1 {
		return "", false
	}
	minutes, err := strconv.ParseInt(job[i+1:], 10, 64)
	if err != nil || created.IsZero() {
		return "", false
	}
	const window = 7 * 24 * 60 // Jobs retry, and start late
	made := created.Unix() / 60
	return job[:i], minutes <= made+1 && minutes >= made-window
}

// imageDigest returns the manifest digest of a container status' imageID if its repository is that of the reference.
// Runtimes also put the bare digest of the image's configuration there, or another name of the same content.
func imageDigest(reference, imageID string) string {
	name, d, ok := strings.Cut(imageID, "@")
	if !ok || digest.Digest(d).Validate() != nil {
		return ""
	}
	name = strings.TrimPrefix(name, "docker-pullable://")
	if repo := ref.Name(reference); name != repo && !strings.HasSuffix(name, "/"+repo) {
		return ""
	}
	return d
}
