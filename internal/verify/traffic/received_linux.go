package traffic

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// counter counts the bytes that came in on a TCP connection, also after the owner of the connection has closed it: the
// other end learns of that when the counter is closed too.
type counter struct{ fd int }

// newCounter returns nil for another connection than one of TCP.
func newCounter(conn net.Conn) *counter {
	c, ok := conn.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return nil
	}
	fd := -1
	if err := raw.Control(func(s uintptr) { fd, err = unix.FcntlInt(s, unix.F_DUPFD_CLOEXEC, 0) }); err != nil || fd < 0 {
		return nil
	}
	return &counter{fd}
}

// received returns the number of bytes since the connection was made, TLS and HTTP headers included.
func (c *counter) received() int64 {
	info, err := unix.GetsockoptTCPInfo(c.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return 0
	}
	return int64(info.Bytes_received)
}

func (c *counter) close() { _ = unix.Close(c.fd) }
