package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"
)

const (
	// listenAgain is the pause when somebody else has the port.
	listenAgain = 2 * time.Second
	// maxConns and maxConnsOfOne bound what everybody in a cluster may take of the agent's memory, and leave room for the
	// kubelet and Prometheus, which have addresses of their own.
	maxConns      = 256
	maxConnsOfOne = 8
)

// serve serves the metrics until stop is called. A port that is taken is no reason not to keep the node's files right:
// on a host any user may take it. It is asked for again.
func (c *config) serve(ctx context.Context) (stop func(), err error) {
	l, err := net.Listen("tcp", c.metricsAddr)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		c.Log.Error("serving metrics, trying again", "err", err)
	case err != nil:
		return nil, fmt.Errorf("serving metrics: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	s := &http.Server{
		Handler: c.Metrics.Handler(), ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second,
		IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for l == nil {
			select {
			case <-ctx.Done():
				return
			case <-time.After(listenAgain):
			}
			if again, err := net.Listen("tcp", c.metricsAddr); err == nil {
				l = again
				c.Log.Info("serving metrics")
			}
		}
		if err := s.Serve(&limited{Listener: l, of: map[string]int{}}); !errors.Is(err, http.ErrServerClosed) {
			c.Log.Error("serving metrics", "err", err)
		}
	}()
	return func() {
		cancel()
		_ = s.Close()
		<-done
	}, nil
}

// limited is a listener that closes connections at once that are too many, in all or from one address.
type limited struct {
	net.Listener

	mu  sync.Mutex
	all int
	of  map[string]int
}

func (l *limited) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
		if l.take(host) {
			return &counted{Conn: c, release: sync.OnceFunc(func() { l.release(host) })}, nil
		}
		_ = c.Close()
	}
}

func (l *limited) take(host string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all >= maxConns || l.of[host] >= maxConnsOfOne {
		return false
	}
	l.all++
	l.of[host]++
	return true
}

func (l *limited) release(host string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all--
	if l.of[host]--; l.of[host] == 0 {
		delete(l.of, host)
	}
}

// counted is a connection that counts until it is closed.
type counted struct {
	net.Conn
	release func()
}

func (c *counted) Close() error {
	defer c.release()
	return c.Conn.Close()
}
