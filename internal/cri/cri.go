// Package cri connects to the socket of a container runtime. Access to it is as good as root on the node.
package cri

import (
	"context"
	"fmt"
	"net"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// DefaultSocket is where CRI-O listens.
const DefaultSocket = "unix:///var/run/crio/crio.sock"

// Dial connects lazily to a path or unix:///path, or to DefaultSocket if address is empty: a socket that is not there
// shows in the first call.
func Dial(address string, options ...grpc.DialOption) (*grpc.ClientConn, error) {
	path := SocketPath(address)
	conn, err := grpc.NewClient("passthrough:///cri", append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		}),
	}, options...)...)
	if err != nil {
		return nil, fmt.Errorf("connecting to %s: %w", path, err)
	}
	return conn, nil
}

// SocketPath is the file of an address.
func SocketPath(address string) string {
	if address == "" {
		address = DefaultSocket
	}
	return strings.TrimPrefix(address, "unix://")
}
