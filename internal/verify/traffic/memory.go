package traffic

import (
	"math"
	"runtime/debug"
	"runtime/metrics"
)

// A counter of bytes doesn't tell what a few bytes of gzip unpack to: net/http unpacks answers, and the library reads
// the pages of errors to their end. So a program that has set a memory limit watches its memory as well.
const (
	liveMetric    = "/gc/heap/live:bytes"
	objectsMetric = "/memory/classes/heap/objects:bytes"
	// perByte is the memory that a received byte may take: reading a body takes two or three bytes. slack is for parsing
	// the body, and rubbish for the garbage of both.
	perByte = 3
	slack   = 12 << 20
	rubbish = 32 << 20
)

// memory watches this process's memory while the library reads.
type memory struct {
	samples       []metrics.Sample
	live, objects uint64 // bytes at the beginning: as of the last collection, and with garbage
	most          uint64 // of objects: beyond the limit the collector can't keep up
	others        uint64
}

// watchMemory returns nil where no limit is set. others is what the rest of the process may take meanwhile, in bytes.
func watchMemory(others int64) *memory {
	limit := debug.SetMemoryLimit(-1)
	if limit == math.MaxInt64 {
		return nil
	}
	m := &memory{
		samples: []metrics.Sample{{Name: liveMetric}, {Name: objectsMetric}}, most: uint64(limit),
		others: uint64(max(others, 0)),
	}
	m.live, m.objects = m.read()
	return m
}

func (m *memory) read() (live, objects uint64) {
	metrics.Read(m.samples)
	return m.samples[0].Value.Uint64(), m.samples[1].Value.Uint64()
}

// check returns a *TooMuchError if more memory was taken than the received bytes explain.
func (m *memory) check(received int64) error {
	if m == nil {
		return nil
	}
	live, objects := m.read()
	fair := perByte*uint64(received) + slack + m.others
	garbage := uint64(rubbish)
	if m.others > 0 {
		garbage = rubbish/2 + m.live // the others', which the collector lets grow to what is live
	}
	if live > m.live+fair || objects > min(m.most, m.objects+fair+garbage) {
		return TooMuch("%d bytes, which unpack to far more", received)
	}
	return nil
}
