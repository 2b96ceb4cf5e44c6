package verify

import "io/fs"

// ReadHostFile reads a regular file of at most limit bytes of the host whose root directory is root. Symbolic links are
// followed as a process of that host would follow them; errors name path as the host knows it.
func ReadHostFile(root, path string, limit int64) ([]byte, error) {
	return hostFS{root: root}.readFile(path, limit)
}

// ReadHostDir lists a directory of the host whose root directory is root.
func ReadHostDir(root, path string) ([]fs.DirEntry, error) { return hostFS{root: root}.readDir(path) }
