package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// settle is how long changes are gathered before they are shown.
	settle = 300 * time.Millisecond
	// pause is the time between attempts to reach the API server.
	pause = 3 * time.Second
)

// Watch calls show with a snapshot at first and after changes. While the API server can't be read, show gets an error
// and the last snapshot. Watch ends with ctx, or with an error if the first list fails for good.
func (c *Client) Watch(ctx context.Context, agents string, show func(*Snapshot, error)) error {
	watching, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	w := &watcher{c: c, poke: make(chan struct{}, 1)}
	nodes := &watched[node]{path: nodesPath, of: newNode}
	pods := &watched[agent]{path: agentsPath, selector: agentLabel, of: newAgent}
	var done sync.WaitGroup
	defer done.Wait()
	done.Go(func() { follow(watching, w, nodes, func(err error) { fail(fmt.Errorf("listing nodes: %w", err)) }) })
	if agents != AgentsElsewhere {
		done.Go(func() { follow(watching, w, pods, func(error) {}) })
	}
	for {
		select {
		case <-watching.Done():
			if ctx.Err() == nil {
				return context.Cause(watching)
			}
			return nil
		case <-w.poke:
		}
		w.mu.Lock()
		s := &Snapshot{
			elsewhere: agents == AgentsElsewhere,
			nodes:     slices.Collect(maps.Values(nodes.all)), agents: slices.Collect(maps.Values(pods.all)),
		}
		if pods.err != nil {
			s.AgentsErr = fmt.Errorf("listing the agents' pods: %w", pods.err)
		}
		ready, err := nodes.all != nil && (pods.all != nil || pods.err != nil || s.elsewhere), nodes.err
		w.mu.Unlock()
		if ready {
			show(s, err)
		}
		sleep(watching, settle)
	}
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// watcher is what the watched lists share.
type watcher struct {
	c    *Client
	poke chan struct{} // after a change
	mu   sync.Mutex
}

// change changes a list, and hints at it.
func (w *watcher) change(do func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	do()
	select {
	case w.poke <- struct{}{}:
	default:
	}
}

// watched is a list that is kept up to date.
type watched[T any] struct {
	path, selector string
	of             func(row) T

	all map[string]T // by name; nil before the first list
	err error        // why all may be old
}

func (l *watched[T]) put(kind string, r row) {
	if kind == "DELETED" {
		delete(l.all, r.Metadata.Name)
	} else {
		l.all[r.Metadata.Name] = l.of(r)
	}
}

// follow lists and watches until ctx is done. It calls failed, and ends, if there never was a list and failed ends ctx.
func follow[T any](ctx context.Context, w *watcher, l *watched[T], failed func(error)) {
	version := ""
	for ctx.Err() == nil {
		var err error
		if version == "" {
			var rows []row
			if rows, version, err = w.c.list(ctx, l.path, l.selector); err == nil {
				w.change(func() {
					l.all, l.err = map[string]T{}, nil
					for _, r := range rows {
						l.put("", r)
					}
				})
			}
		}
		if err == nil {
			err = w.c.watch(ctx, l.path, l.selector, version, func(kind string, r row) {
				version = r.Metadata.ResourceVersion
				w.change(func() { l.put(kind, r) })
			})
			if expired(err) {
				version = ""
				continue
			}
			if err == nil {
				continue
			}
		}
		if ctx.Err() != nil {
			return
		}
		w.change(func() { l.err = err })
		if l.all == nil {
			failed(err)
		}
		version = "" // a new list has the missed changes
		sleep(ctx, pause)
	}
}

// watch calls changed with each event at path after version, until the server ends the stream, which it does every few
// minutes. An error of type Expired means that a new list is needed.
func (c *Client) watch(ctx context.Context, path, selector, version string, changed func(kind string, r row)) error {
	query := map[string]string{
		"watch": "1", "allowWatchBookmarks": "true", "resourceVersion": version, "includeObject": "Metadata",
		"timeoutSeconds": "300", "labelSelector": selector,
	}
	body, err := c.get(ctx, path, accept, query)
	if err != nil {
		return err
	}
	defer body.Close()
	dec := json.NewDecoder(body)
	var columns table // of the first event: later ones leave them out
	for {
		var event struct {
			Type   string          `json:"type"`
			Object json.RawMessage `json:"object"`
		}
		err := dec.Decode(&event)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("watching %s: %w", path, err)
		}
		if event.Type == "ERROR" {
			var status metav1.Status
			_ = json.Unmarshal(event.Object, &status)
			return &apierrors.StatusError{ErrStatus: status}
		}
		if event.Type == "BOOKMARK" {
			continue
		}
		var t table
		if err := json.Unmarshal(event.Object, &t); err != nil {
			return fmt.Errorf("watching %s: %w", path, err)
		}
		if t.Kind != "Table" {
			var o object
			if err := json.Unmarshal(event.Object, &o); err != nil {
				return fmt.Errorf("watching %s: %w", path, err)
			}
			t.Items = []object{o}
		}
		if len(t.Columns) == 0 {
			t.Columns = columns.Columns
		}
		columns.Columns = t.Columns
		for _, r := range t.rows() {
			changed(event.Type, r)
		}
	}
}
