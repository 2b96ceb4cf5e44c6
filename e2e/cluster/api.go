package cluster

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/nodetrust/nodetrust/e2e/lab"
)

// dial connects to an address in the cluster's network.
func (c *Cluster) dial(ctx context.Context, network, addr string) (conn net.Conn, err error) {
	err = c.plane.InNet(func() (err error) {
		conn, err = (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, network, addr)
		return err
	})
	return conn, err
}

// listen opens a port of this machine's loopback that leads to the API server, and makes the client and the
// kubeconfig for it.
func (c *Cluster) listen() (err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	c.forwards = append(c.forwards, l)
	go c.forwardAll(l, serviceAddress+":443")
	c.server = "https://" + l.Addr().String()
	if err := c.pki.kubeconfig(c.Kubeconfig, "admin", c.server); err != nil {
		return err
	}
	cert, err := tls.LoadX509KeyPair(c.pki.path("admin.crt"), c.pki.path("admin.key"))
	if err != nil {
		return err
	}
	c.client = c.clientWith(&tls.Config{Certificates: []tls.Certificate{cert}})
	return nil
}

// ForwardRegistry opens a port of this machine's loopback that leads to the registry, and returns its address. Pods
// name the images that are pushed there by Registry.Host.
func (c *Cluster) ForwardRegistry() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	c.forwards = append(c.forwards, l)
	go c.forwardAll(l, c.Registry.Host)
	return l.Addr().String(), nil
}

// clientWith is a client that waits longer than the API server, which ends a request after a minute.
func (c *Cluster) clientWith(t *tls.Config) *http.Client {
	t.RootCAs = x509.NewCertPool()
	t.RootCAs.AddCert(c.pki.ca)
	return &http.Client{Transport: &http.Transport{TLSClientConfig: t, ForceAttemptHTTP2: true}, Timeout: 90 * time.Second}
}

// forwardAll leads a listener's connections to an address in the cluster's network until it is closed.
func (c *Cluster) forwardAll(l net.Listener, address string) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			to, err := c.dial(ctx, "tcp", address)
			cancel()
			if err != nil {
				return
			}
			defer to.Close()
			done := make(chan struct{}, 2)
			for _, pair := range [][2]net.Conn{{conn, to}, {to, conn}} {
				go func() {
					_, _ = io.Copy(pair[0], pair[1])
					done <- struct{}{}
				}()
			}
			<-done
		}()
	}
}

// StatusError is an answer of the API server that is no success.
type StatusError struct {
	Code    int
	Message string
}

func (e *StatusError) Error() string { return fmt.Sprintf("%d: %s", e.Code, e.Message) }

// Is404 tells whether the object that was asked for doesn't exist.
func Is404(err error) bool {
	var s *StatusError
	return errors.As(err, &s) && s.Code == http.StatusNotFound
}

// Get reads an object or a list as cluster-admin. A nil out drops it.
func (c *Cluster) Get(path string, out any) error {
	return c.Do(http.MethodGet, path, "", nil, out)
}

// Do sends a request as cluster-admin and decodes the answer to out unless that is nil.
func (c *Cluster) Do(method, path, contentType string, body []byte, out any) error {
	return c.do(c.client, "", method, path, contentType, body, out)
}

// DoAs is Do with a bearer token instead.
func (c *Cluster) DoAs(token, method, path, contentType string, body []byte, out any) error {
	client := c.clientWith(&tls.Config{})
	defer client.CloseIdleConnections()
	return c.do(client, token, method, path, contentType, body, out)
}

// Remove deletes an object or all of a list. What is not there is no error; what the API server doesn't get done in a
// minute is asked of it again.
func (c *Cluster) Remove(path string) error {
	return lab.Poll(patience, func() error {
		err := c.Do(http.MethodDelete, path, "", nil, nil)
		if Is404(err) {
			return nil
		}
		return err
	})
}

func (c *Cluster) do(client *http.Client, token, method, path, contentType string, body []byte, out any) error {
	req, err := http.NewRequest(method, c.server+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		var status struct{ Message string }
		if json.Unmarshal(b, &status) != nil || status.Message == "" {
			status.Message = string(b)
		}
		return &StatusError{resp.StatusCode, status.Message}
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(b, out)
}

// Watch calls f with every object that the path of a list names, as it is now and after each change, until stop is
// called. It follows the API server over restarts; changes in between may be seen as one.
func (c *Cluster) Watch(path string, f func(object json.RawMessage)) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	client := &http.Client{Transport: c.client.Transport}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			c.watch(ctx, client, path, f)
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
		}
	}()
	return func() { cancel(); <-done }
}

// watch returns when the answer ends, for whatever reason.
func (c *Cluster) watch(ctx context.Context, client *http.Client, path string, f func(object json.RawMessage)) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.server+path+"&watch=1", nil)
	if err != nil {
		return
	}
	resp, err := client.Do(req)
	if err != nil {
		return
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return
	}
	for events := json.NewDecoder(resp.Body); ; {
		var e struct {
			Type   string
			Object json.RawMessage
		}
		if events.Decode(&e) != nil {
			return
		}
		if e.Type == "ADDED" || e.Type == "MODIFIED" {
			f(e.Object)
		}
	}
}

// KubectlCommand is the lab's kubectl as cluster-admin; its standard streams are the caller's business.
func (c *Cluster) KubectlCommand(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, c.kube, append([]string{"kubectl"}, args...)...)
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + filepath.Join(c.dir, "home"),
		"KUBECONFIG=" + c.Kubeconfig, "LANG=C",
	}
	return cmd
}

// Kubectl runs kubectl and returns what it writes to standard output.
func (c *Cluster) Kubectl(args ...string) (string, error) {
	return c.kubectl(nil, args...)
}

// Apply applies manifests, server-side.
func (c *Cluster) Apply(manifests []byte) error {
	_, err := c.kubectl(manifests, "apply", "--server-side", "-f", "-")
	return err
}

// Delete deletes what the manifests name and waits until it is gone.
func (c *Cluster) Delete(manifests []byte) error {
	_, err := c.kubectl(manifests, "delete", "--ignore-not-found", "-f", "-")
	return err
}

func (c *Cluster) kubectl(stdin []byte, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := c.KubectlCommand(ctx, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("kubectl %q: %w: %s", args, err, stderr.String())
	}
	return stdout.String(), nil
}
