package main

import (
	"bytes"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nodetrust/nodetrust/internal/audit"
	"github.com/nodetrust/nodetrust/internal/cli"
)

// TestAuditProgress: how far, how fast, and how long still, which what came from the cache says nothing of.
func TestAuditProgress(t *testing.T) {
	for _, tt := range []struct {
		p     audit.Progress
		after time.Duration
		want  string
	}{
		{audit.Progress{Total: 200}, time.Second, "[                        ] 0 of 200 images"},
		{
			audit.Progress{Done: 50, Total: 200},
			5 * time.Second,
			"[######                  ] 50 of 200 images, 10/s, 15s left",
		},
		{
			audit.Progress{Done: 100, Cached: 50, Total: 200},
			5 * time.Second,
			"[############            ] 100 of 200 images, 10/s, 10s left",
		},
		{audit.Progress{Done: 100, Cached: 100, Total: 200}, 5 * time.Second, "[############            ] 100 of 200 images"},
		{
			audit.Progress{Done: 200, Total: 200, Refuse: 3, Unknown: 1},
			20 * time.Second,
			"[########################] 200 of 200 images, 10/s, 0s left, 3 refused, 1 unknown",
		},
		{
			audit.Progress{Done: 1, Total: 5000},
			2 * time.Second,
			"[                        ] 1 of 5000 images, 0/s, 2h46m38s left",
		},
	} {
		if got := auditProgress(tt.p, tt.after); got != tt.want {
			t.Errorf("%+v: %q, want %q", tt.p, got, tt.want)
		}
	}
}

// TestBar: progress is shown on a terminal, within its width, and taken away at the end; elsewhere there is none.
func TestBar(t *testing.T) {
	program, screen := terminal(t)
	synctest.Test(t, func(*testing.T) { // no time goes by but what is slept
		images := cli.NewBar(program)
		time.Sleep(time.Second)
		showProgress(images, audit.Progress{Done: 1000, Total: 2000, Refuse: 1000, Unknown: 1000})
		images.Clear()
	})
	got := until(t, screen, "\r\x1b[K")
	if line, rest, _ := strings.Cut(strings.TrimPrefix(got, "\r"), "\x1b[K"); !strings.HasPrefix(line,
		"[############            ] 1000 of 2000 images, ") || len([]rune(line)) > 79 || rest != "\r\x1b[K" {
		t.Errorf("audit: %q", got)
	}
	synctest.Test(t, func(*testing.T) {
		files := cli.NewBar(program)
		showBytes(files, 1<<20, 4<<20) // not yet: what is done at once needs none
		time.Sleep(time.Second)
		showBytes(files, 3<<20, 4<<20)
		showBytes(files, 4<<20, 4<<20) // not so often
		files.Clear()
	})
	if got := until(t, screen, "\r\x1b[K"); got != "\r[######################        ]  75 % of 4 MiB\x1b[K\r\x1b[K" {
		t.Errorf("files: %q", got)
	}

	var b bytes.Buffer
	synctest.Test(t, func(*testing.T) {
		bar := cli.NewBar(&b)
		time.Sleep(time.Second)
		showProgress(bar, audit.Progress{Done: 1, Total: 2})
		showBytes(bar, 1, 2)
		bar.Clear()
	})
	if b.Len() > 0 {
		t.Errorf("no terminal: %q", &b)
	}
}
