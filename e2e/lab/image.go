package lab

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
)

// Source is a copy of all that the project's image is made from.
type Source struct {
	// Dir holds the files that .dockerignore lets through, and with them Dockerfile and .dockerignore.
	Dir string
	// Files are those that the build may see, as paths in Dir, sorted.
	Files []string

	hash string
}

// Source copies the work tree as it is now.
func (l *Lab) Source() (*Source, error) {
	root, err := ModuleRoot()
	if err != nil {
		return nil, err
	}
	s := &Source{}
	if s.Dir, err = os.MkdirTemp(l.Dir, "source-"); err != nil {
		return nil, err
	}
	ignore, err := os.ReadFile(filepath.Join(root, ".dockerignore"))
	if err != nil {
		return nil, err
	}
	if s.Files, err = let(root, strings.Split(string(ignore), "\n")); err != nil {
		return nil, fmt.Errorf("looking for what .dockerignore lets through: %w", err)
	}
	slices.Sort(s.Files)
	h := sha256.New()
	for _, name := range append([]string{"Dockerfile", ".dockerignore"}, s.Files...) {
		if err := copyInto(s.Dir, root, name); err != nil {
			return nil, err
		}
		b, err := os.ReadFile(filepath.Join(s.Dir, name))
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(h, "%s %d\n%s", name, len(b), b)
	}
	s.hash = hex.EncodeToString(h.Sum(nil))
	return s, nil
}

// let returns the regular files below root that the lines of a .dockerignore let through: the last one that matches
// counts.
func let(root string, lines []string) ([]string, error) {
	var files []string
	err := filepath.WalkDir(root, func(file string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		if e.IsDir() && slices.Contains([]string{".git", "bin", "dist", "testdata"}, e.Name()) {
			return fs.SkipDir // large, and nothing in them is let through
		}
		through := true
		for _, line := range lines {
			pattern, not := strings.CutPrefix(strings.TrimSpace(line), "!")
			if matches(pattern, name) {
				through = not
			}
		}
		if through && e.Type().IsRegular() {
			files = append(files, name)
		}
		return nil
	})
	return files, err
}

// matches tells whether a pattern of our .dockerignore is of a file or of a directory that it is in.
func matches(pattern, name string) bool {
	switch part, deep := strings.CutPrefix(pattern, "**/"); {
	case pattern == "*":
		return true
	case deep:
		return slices.ContainsFunc(strings.Split(name, "/"), func(component string) bool {
			ok, _ := path.Match(part, component)
			return ok
		})
	}
	return name == pattern || strings.HasPrefix(name, pattern+"/")
}

func copyInto(dir, root, name string) error {
	info, err := os.Stat(filepath.Join(root, name))
	if err != nil {
		return err
	}
	b, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		return err
	}
	to := filepath.Join(dir, name)
	return errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, b, info.Mode().Perm()))
}

// debian are the roots of Debian packages that stand for the images which the Dockerfile names: the base is what
// runs, the builder has a compiler. Go is the machine's, and mounted.
var debian = []struct{ name, packages, path string }{
	{"base", "ca-certificates,gnupg,libgpgme11", ""},
	{"builder", "ca-certificates,gnupg,gcc,libc6-dev,libgpgme-dev,make,pkg-config", "/usr/local/go/bin:"},
}

const debianPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Image returns the project's image, built from the work tree as it is now by podman and `make image`, as a directory
// with an OCI layout. It is kept in the user's cache directory under the hash of what it was made from: another one
// takes half a minute, and the very first two more, in which the roots of Debian packages are made.
func (l *Lab) Image(ctx context.Context) (string, error) {
	s, err := l.Source()
	if err != nil {
		return "", err
	}
	roots, key, err := debianRoots(ctx)
	if err != nil {
		return "", err
	}
	version, err := exec.CommandContext(ctx, "go", "env", "GOVERSION", "GOARCH").Output()
	if err != nil {
		return "", fmt.Errorf("asking the go command: %w", err)
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %s %s", s.hash, key, version))
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	kept := filepath.Join(cache, "image-"+hex.EncodeToString(sum[:])[:20])
	if _, err := os.Stat(kept); err == nil {
		return kept, nil
	}
	gocache, err := exec.CommandContext(ctx, "go", "env", "GOCACHE").Output()
	if err != nil {
		return "", fmt.Errorf("asking the go command: %w", err)
	}
	built, err := l.buildImage(ctx, s, roots, strings.TrimSpace(string(gocache)))
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(filepath.Dir(built))
	tmp, err := os.MkdirTemp(cache, "new-image-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	if err := os.CopyFS(filepath.Join(tmp, "image"), os.DirFS(built)); err != nil {
		return "", fmt.Errorf("keeping the image: %w", err)
	}
	// Another lab of this user may have been faster.
	if err := os.Rename(filepath.Join(tmp, "image"), kept); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("keeping the image: %w", err)
	}
	return kept, forget(cache, "image-", 4)
}

// BuildImage builds the image of a source from nothing, no object of the Go command's cache included, and returns a
// directory with an OCI layout.
func (l *Lab) BuildImage(ctx context.Context, s *Source) (string, error) {
	roots, _, err := debianRoots(ctx)
	if err != nil {
		return "", err
	}
	gocache, err := os.MkdirTemp(l.Dir, "go-build-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(gocache)
	return l.buildImage(ctx, s, roots, gocache)
}

// imageScript runs in namespaces of its own: what it mounts and starts ends with it. Isolation by chroot, because a
// container of its own is more than many machines of CI allow.
const imageScript = `set -e
dir=$1 base=$2 builder=$3 source=$4
mount --bind "$dir/containers" /etc/containers
podman import -q --change "ENV PATH=$BASE_PATH" "$base" localhost/lab/base
podman import -q --change "ENV PATH=$BUILDER_PATH" "$builder" localhost/lab/builder
make -s -C "$source" image IMAGE=localhost/lab/nodetrust VERSION=lab BUILDER=localhost/lab/builder BASE=localhost/lab/base PODMANFLAGS="$PODMANFLAGS"
podman save -q --format oci-dir -o "$dir/oci" localhost/lab/nodetrust
`

func (l *Lab) buildImage(ctx context.Context, s *Source, roots map[string]string, gocache string) (string, error) {
	env, err := exec.CommandContext(ctx, "go", "env", "GOROOT", "GOMODCACHE").Output()
	if err != nil {
		return "", fmt.Errorf("asking the go command: %w", err)
	}
	goroot, modules, _ := strings.Cut(strings.TrimSpace(string(env)), "\n")
	flags := fmt.Sprintf("--isolation chroot --pull=never --no-cache --format oci -v %s:/usr/local/go:ro -v %s:/root/go/pkg/mod:ro -v %s:/root/.cache/go-build",
		goroot, modules, gocache)
	dir, err := l.podmanDir()
	if err != nil {
		return "", err
	}
	err = l.podman(ctx, dir, imageScript, []string{
		"PODMANFLAGS=" + flags, "BASE_PATH=" + debian[0].path + debianPath,
		"BUILDER_PATH=" + debian[1].path + debianPath,
	},
		dir, roots["base"], roots["builder"], s.Dir)
	if err != nil {
		return "", errors.Join(fmt.Errorf("building the image: %w", err), os.RemoveAll(dir))
	}
	return filepath.Join(dir, "oci"), os.RemoveAll(filepath.Join(dir, "storage"))
}

// Context returns the files that a build of the source gets to see, by building an image of all of them.
func (l *Lab) Context(ctx context.Context, s *Source) ([]string, error) {
	dir, err := l.podmanDir()
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "Containerfile")
	if err := os.WriteFile(file, []byte("FROM scratch\nCOPY . /\n"), 0o644); err != nil {
		return nil, err
	}
	err = l.podman(ctx, dir, `set -e
mount --bind "$1/containers" /etc/containers
podman build -q --isolation chroot -f "$1/Containerfile" -t localhost/lab/context "$2"
cd "$(podman image mount localhost/lab/context)"
find . -type f -printf '%P\n' >"$1/files"
`, nil, dir, s.Dir)
	if err != nil {
		return nil, fmt.Errorf("building an image of the context: %w", err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "files"))
	if err != nil {
		return nil, err
	}
	files := strings.Fields(string(b))
	slices.Sort(files)
	return files, nil
}

// podmanDir makes a directory with all that podman writes and reads besides its programs.
func (l *Lab) podmanDir() (string, error) {
	dir, err := os.MkdirTemp(l.Dir, "podman-")
	if err != nil {
		return "", err
	}
	storage := fmt.Sprintf("[storage]\ndriver = \"overlay\"\ngraphroot = %q\nrunroot = %q\n",
		filepath.Join(dir, "storage"), filepath.Join(dir, "run"))
	// Podman's own defaults would leave locks in /dev/shm and directories in /run.
	engine := fmt.Sprintf("[engine]\ntmp_dir = %q\nlock_type = \"file\"\nevents_logger = \"none\"\n",
		filepath.Join(dir, "tmp/libpod"))
	return dir, errors.Join(
		os.WriteFile(filepath.Join(dir, "containers.conf"), []byte(engine), 0o644),
		os.Mkdir(filepath.Join(dir, "containers"), 0o755), os.Mkdir(filepath.Join(dir, "tmp"), 0o755),
		os.WriteFile(filepath.Join(dir, "storage.conf"), []byte(storage), 0o644),
		os.WriteFile(filepath.Join(dir, "containers/policy.json"),
			[]byte(`{"default":[{"type":"insecureAcceptAnything"}]}`), 0o644),
		os.WriteFile(filepath.Join(dir, "containers/registries.conf"), []byte("unqualified-search-registries = []\n"), 0o644),
	)
}

// podman runs a script that calls podman, in namespaces of its own.
func (l *Lab) podman(ctx context.Context, dir, script string, env []string, args ...string) error {
	cmd := exec.CommandContext(ctx, "unshare", slices.Concat(namespaces(), []string{"sh", "-c", script, "sh"}, args)...)
	cmd.Env = append(without(os.Environ(), "MAKEFLAGS", "MAKELEVEL", "MFLAGS", "CONTAINERS_REGISTRIES_CONF", "VERSION"),
		append(env, "CONTAINERS_CONF="+filepath.Join(dir, "containers.conf"),
			"CONTAINERS_STORAGE_CONF="+filepath.Join(dir, "storage.conf"), "TMPDIR="+filepath.Join(dir, "tmp"),
			"HOME="+filepath.Join(dir, "tmp"))...)
	return l.run(cmd)
}

// run runs a command that ends with the lab, and says what it said if it fails.
func (l *Lab) run(cmd *exec.Cmd) error {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := l.start.start(cmd); err != nil {
		return err
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%w\n%s", err, out.String())
	}
	return nil
}

// debianRoots makes those that aren't there yet, as archives in the user's cache directory, from the mirrors of
// Debian with the settings of the machine's apt. The key stands for all of them.
func debianRoots(ctx context.Context) (roots map[string]string, key string, err error) {
	release, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return nil, "", err
	}
	suite := cmp.Or(OSRelease(string(release))["VERSION_CODENAME"], "unstable")
	settings, err := exec.CommandContext(ctx, "apt-config", "dump", "Acquire").Output()
	if err != nil {
		return nil, "", fmt.Errorf("asking apt: %w", err)
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %s %s %s", debian, suite, runtime.GOARCH, mmdebstrapFlags))
	key = hex.EncodeToString(sum[:])[:20]
	cache, err := cacheDir()
	if err != nil {
		return nil, "", err
	}
	dir := filepath.Join(cache, "debian-"+key)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, "", err
	}
	unlock, err := lock(dir)
	if err != nil {
		return nil, "", err
	}
	defer unlock()
	tmp, err := os.MkdirTemp(dir, "new-")
	if err != nil {
		return nil, "", err
	}
	defer os.RemoveAll(tmp)
	apt := filepath.Join(tmp, "apt.conf")
	if err := os.WriteFile(apt, settings, 0o644); err != nil {
		return nil, "", err
	}
	roots = map[string]string{}
	var both errgroup.Group
	for _, d := range debian {
		path := filepath.Join(dir, d.name+".tar")
		roots[d.name] = path
		if _, err := os.Stat(path); err == nil {
			continue
		}
		both.Go(func() error {
			out := filepath.Join(tmp, d.name+".tar")
			args := append(namespaces(), "mmdebstrap", "--include="+d.packages, "--aptopt="+apt)
			cmd := exec.CommandContext(ctx, "unshare", slices.Concat(args, mmdebstrapFlags, []string{suite, out})...)
			if b, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("making a root of Debian packages: %w\n%s", err, b)
			}
			return os.Rename(out, path)
		})
	}
	return roots, key, both.Wait()
}

// mmdebstrapFlags leave out what no program reads.
var mmdebstrapFlags = []string{
	"--quiet", "--mode=root", "--variant=apt",
	"--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*",
	"--dpkgopt=path-exclude=/usr/share/locale/*",
}

// OSRelease reads the text of an os-release file.
func OSRelease(text string) map[string]string {
	values := map[string]string{}
	for line := range strings.Lines(text) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			values[k] = strings.Trim(v, `"`)
		}
	}
	return values
}

// cacheDir is where programs and images are kept over runs.
func cacheDir() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("finding the cache directory: %w", err)
	}
	return filepath.Join(cache, "nodetrust"), os.MkdirAll(filepath.Join(cache, "nodetrust"), 0o755)
}

// forget removes all but the newest directories of the cache whose names begin with prefix.
func forget(cache, prefix string, keep int) error {
	dirs, err := filepath.Glob(filepath.Join(cache, prefix+"*"))
	if err != nil {
		return err
	}
	age := func(path string) int64 {
		info, err := os.Stat(path)
		if err != nil {
			return 0
		}
		return -info.ModTime().UnixNano()
	}
	slices.SortFunc(dirs, func(a, b string) int { return cmp.Compare(age(a), age(b)) })
	for _, d := range dirs[min(keep, len(dirs)):] {
		err = errors.Join(err, os.RemoveAll(d))
	}
	return err
}
