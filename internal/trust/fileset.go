package trust

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strings"
)

// File is one file of a node, complete.
type File struct {
	// Path is absolute and clean.
	Path string
	// Mode holds permission bits only, for example 0o644.
	Mode uint32
	UID  uint32
	GID  uint32
	Data []byte
}

// FileSet is what one trust config puts on a node: at most one File per path.
type FileSet []File

// Sorted returns the files in the order of their paths. The receiver is unchanged; file contents are shared.
func (s FileSet) Sorted() FileSet {
	out := append(FileSet{}, s...)
	slices.SortFunc(out, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	return out
}

// Digest returns "sha256:" and 64 hex digits over the files sorted by path: each with the length of its path (8 bytes,
// big-endian), the path, mode, uid and gid (4 bytes each, big-endian), the length of its content (8 bytes, big-endian)
// and the content. Equal digests mean equal path, mode, owner and bytes of all files.
func (s FileSet) Digest() string {
	h := sha256.New()
	var n [8]byte
	for _, f := range s.Sorted() {
		binary.BigEndian.PutUint64(n[:], uint64(len(f.Path)))
		h.Write(n[:])
		h.Write([]byte(f.Path))
		for _, v := range []uint32{f.Mode, f.UID, f.GID} {
			binary.BigEndian.PutUint32(n[:4], v)
			h.Write(n[:4])
		}
		binary.BigEndian.PutUint64(n[:], uint64(len(f.Data)))
		h.Write(n[:])
		h.Write(f.Data)
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil))
}

// ContentDigest returns "sha256:" and 64 hex digits over the bytes of one file.
func ContentDigest(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// Get returns the file at path.
func (s FileSet) Get(path string) (File, bool) {
	if i := slices.IndexFunc(s, func(f File) bool { return f.Path == path }); i >= 0 {
		return s[i], true
	}
	return File{}, false
}
