package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// terminal is a pseudoterminal of 80 columns and 24 lines: what a program writes to the one is read from the other.
func terminal(t *testing.T) (program, screen *os.File) {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Skipf("no pseudoterminals here: %v", err)
	}
	screen = os.NewFile(uintptr(fd), "/dev/ptmx")
	t.Cleanup(func() { screen.Close() })
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 80})
	}
	if err == nil {
		program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		t.Skipf("no pseudoterminals here: %v", err)
	}
	t.Cleanup(func() { program.Close() })
	return program, screen
}

// until reads from a terminal until text has come, and returns all of it.
func until(t *testing.T, screen *os.File, text string) string {
	t.Helper()
	if err := screen.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	buf := make([]byte, 4096)
	for !strings.Contains(all.String(), text) {
		n, err := screen.Read(buf)
		if err != nil {
			t.Fatalf("waiting for %q: %v after %q", text, err, all.String())
		}
		all.Write(buf[:n])
	}
	return all.String()
}

// TestStatusTerminal watches on a terminal: colours, each picture in place of the last, and the cursor back at the end.
func TestStatusTerminal(t *testing.T) {
	t.Setenv("NO_COLOR", "")
	t.Setenv("TERM", "xterm")
	at := time.Now().Add(-5 * time.Hour) // an age that stays
	s := newAPIServer(t)
	s.nodes = []map[string]any{reportedNode("n1", "Ready", "Enforced", at)}
	s.pods = []map[string]any{agentPod("n1", "worker", "1/1", at)}
	program, screen := terminal(t)
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	ended := make(chan int, 1)
	var errs bytes.Buffer
	args := []string{"status", "--kubeconfig", s.kubeconfig(t)}
	go func() { ended <- run(ctx, append(args, "--watch"), strings.NewReader(""), program, &errs) }()
	if got := until(t, screen, "\x1b[J"); !strings.HasPrefix(got, "\x1b[?25l\x1b[2J\x1b[H") ||
		!strings.Contains(got, "\x1b[32mEnforced\x1b[0m") {
		t.Errorf("the first picture: %q", got)
	}
	s.events <- reportedNode("n1", "Ready", "Blocked", at)
	if got := until(t, screen, "\x1b[J"); !strings.HasPrefix(got, "\x1b[H") ||
		!strings.Contains(got, "\x1b[31mBlocked\x1b[0m") || strings.Contains(got, "\x1b[2J") {
		t.Errorf("the second picture: %q", got)
	}
	interrupt()
	if code := <-ended; code != 0 || errs.Len() > 0 {
		t.Errorf("exit status %d, %s", code, errs.String())
	}
	if got := until(t, screen, "h"); got != "\x1b[?25h" {
		t.Errorf("at the end: %q", got)
	}

	t.Setenv("NO_COLOR", "1")
	if code := run(t.Context(), args, strings.NewReader(""), program, &errs); code != 0 {
		t.Errorf("exit status %d, %s", code, errs.String())
	}
	if got := until(t, screen, "pool worker"); strings.Contains(got, "\x1b") {
		t.Errorf("NO_COLOR is set: %q", got)
	}
}
