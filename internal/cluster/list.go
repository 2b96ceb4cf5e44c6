package cluster

import (
	"context"
	"errors"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// accept asks for tables with the metadata of each object, as kubectl get does: 2 kB for a Node instead of 20, with
// labels, annotations and readiness. The metadata API has no conditions, and a field selector can't choose fields.
const accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"

// table is the used part of a meta.k8s.io/v1 Table, or of a plain list if a server knows no tables.
type table struct {
	Kind     string          `json:"kind"`
	Metadata metav1.ListMeta `json:"metadata"`
	Columns  []struct {
		Name string `json:"name"`
	} `json:"columnDefinitions"`
	Rows []struct {
		Cells  []any  `json:"cells"`
		Object object `json:"object"`
	} `json:"rows"`
	Items []object `json:"items"`
}

// object is the used part of an object. Spec and Status are set only if the server sends whole objects.
type object struct {
	Metadata metav1.ObjectMeta `json:"metadata"`
	Spec     struct {
		NodeName string `json:"nodeName"`
	} `json:"spec"`
	Status struct {
		Phase    string `json:"phase"`
		NodeInfo struct {
			ContainerRuntimeVersion string `json:"containerRuntimeVersion"`
		} `json:"nodeInfo"`
		Conditions []metav1.Condition `json:"conditions"`
	} `json:"status"`
}

type row struct {
	object
	cells map[string]string
}

// is returns the status of a condition of a whole object, or "" without it.
func (o object) is(condition string) string {
	for _, c := range o.Status.Conditions {
		if c.Type == condition {
			return string(c.Status)
		}
	}
	return ""
}

func (t table) rows() []row {
	var out []row
	for _, o := range t.Items {
		out = append(out, row{object: o})
	}
	for _, r := range t.Rows {
		x := row{object: r.Object, cells: map[string]string{}}
		for i, cell := range r.Cells {
			if s, ok := cell.(string); ok && i < len(t.Columns) {
				x.cells[t.Columns[i].Name] = s
			}
		}
		out = append(out, x)
	}
	return out
}

// list returns all objects at path, page by page, and the version from which a watch continues.
func (c *Client) list(ctx context.Context, path, selector string) (rows []row, version string, err error) {
	err = retry(func() error {
		rows = nil
		query := map[string]string{"limit": pageSize, "labelSelector": selector, "includeObject": "Metadata"}
		for {
			t, err := readJSON[table](ctx, c, path, accept, query, maxPage)
			if err != nil {
				return err
			}
			rows = append(rows, t.rows()...)
			if t.Metadata.Continue == "" {
				version = t.Metadata.ResourceVersion
				return nil
			}
			query["continue"] = t.Metadata.Continue
		}
	})
	return rows, version, err
}

// listOf is a list of whole objects of which T is the used part.
type listOf[T any] struct {
	Metadata metav1.ListMeta `json:"metadata"`
	Items    []T             `json:"items"`
}

const maxExpired = 100

// eachOf calls yield with every object at path, decoded to T. It holds one page.
func eachOf[T any](ctx context.Context, c *Client, path, selector string, yield func(T) error) error {
	query := map[string]string{"limit": pageSize, "labelSelector": selector}
	for again := 0; ; {
		page, err := readJSON[listOf[T]](ctx, c, path, wholeObject, query, maxPage)
		if expired(err) && again < maxExpired {
			// The server names a position in the present list; objects that stayed are seen either way.
			var status *apierrors.StatusError
			errors.As(err, &status)
			again++
			if query["continue"] = status.ErrStatus.Continue; query["continue"] == "" && again > attempts {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		for _, item := range page.Items {
			if err := yield(item); err != nil {
				return err
			}
		}
		switch page.Metadata.Continue {
		case "":
			return nil
		case query["continue"]:
			return errors.New("the API server names the same page again and again")
		}
		query["continue"] = page.Metadata.Continue
	}
}
