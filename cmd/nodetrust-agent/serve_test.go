package main

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nodetrust/nodetrust/agent"
)

// loopback is an address of this machine that nobody else uses: what is a free port of it stays one.
func loopback() string {
	pid := os.Getpid()
	return net.IPv4(127, byte(1+pid>>16), byte(pid>>8), byte(pid)).String()
}

// TestPortIsTaken: any user of a host may take the port; the agent works all the same, and serves when it is free.
func TestPortIsTaken(t *testing.T) {
	taken, err := net.Listen("tcp", loopback()+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	addr := taken.Addr().String()

	dir := t.TempDir()
	ign := `{"ignition":{"version":"3.4.0"},"storage":{"files":[{"path":"/etc/containers/policy.json","contents":{"source":"data:,%7B%7D"}}]}}`
	if err := os.WriteFile(filepath.Join(dir, "desired.ign"), []byte(ign), 0o644); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := try(t, "--host-root", t.TempDir(), "--desired", dir, "--once", "--observe", "--node-name", "",
		"--metrics-addr", addr)
	if code != exitBad || !strings.HasPrefix(stdout, "Drifted") || !strings.Contains(stderr, "address already in use") {
		t.Errorf("exit %d, %s%s", code, stdout, stderr)
	}

	c := &config{metricsAddr: addr}
	c.Log, c.Metrics = slog.New(slog.DiscardHandler), agent.NewMetrics()
	stop, err := c.serve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	taken.Close()
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if res, err := http.Get("http://" + addr + "/healthz"); err == nil {
			res.Body.Close()
			break
		}
		if time.Now().After(end) {
			t.Fatal("the port is free, and nobody serves")
		}
	}
}

// TestManyConnections: every pod of a cluster may connect. One that keeps hundreds of connections gets a few; others,
// such as the kubelet, are served.
func TestManyConnections(t *testing.T) {
	free, err := net.Listen("tcp", loopback()+":0")
	if err != nil {
		t.Fatal(err)
	}
	addr := free.Addr().String()
	free.Close()
	c := &config{metricsAddr: addr}
	c.Log, c.Metrics = slog.New(slog.DiscardHandler), agent.NewMetrics()
	stop, err := c.serve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	var conns []net.Conn
	for range 300 {
		n, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		conns = append(conns, n)
	}
	open := 0
	for _, n := range conns {
		// A connection that was closed says so; one that is kept says nothing until it is asked.
		if _, err := n.Write([]byte("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")); err != nil {
			continue
		}
		_ = n.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.ReadFull(n, make([]byte, 12)); err == nil {
			open++
		}
	}
	if open == 0 || open > maxConnsOfOne {
		t.Errorf("%d of %d connections of one address are kept", open, len(conns))
	}
	other := &http.Client{Transport: &http.Transport{
		DialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}).DialContext,
	}}
	defer other.CloseIdleConnections()
	req, err := http.NewRequestWithContext(context.Background(), "GET", "http://"+addr+"/healthz", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := other.Do(req)
	if err != nil {
		t.Fatalf("another address is not served: %v", err)
	}
	res.Body.Close()
}
