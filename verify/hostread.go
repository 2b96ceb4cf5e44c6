package verify

import (
	"io/fs"
	"os"
)

// ReadHostFile reads a regular file of at most limit bytes of the host whose root directory is root. Symbolic links are
// followed as a process of that host would follow them; errors name path as the host knows it.
func ReadHostFile(root, path string, limit int64) ([]byte, error) {
	return hostFS{root: root}.readFile(path, limit)
}

// ReadHostDir lists a directory of the host whose root directory is root.
func ReadHostDir(root, path string) ([]fs.DirEntry, error) { return hostFS{root: root}.readDir(path) }

// LoadRegistries asks the image library whether registries.d files with this content load together. They must have
// different base names. An error means that every pull of a docker image fails, and names the files by their paths.
func LoadRegistries(files []File) error {
	tmp, err := os.MkdirTemp("", "nodetrust-registries.d-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	in := make([]configFile, len(files))
	for i, f := range files {
		in[i] = configFile{path: f.Path, data: f.Data}
	}
	return loadRegistriesD(in, tmp)
}
