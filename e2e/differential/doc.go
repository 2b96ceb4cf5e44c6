// Package differential holds nodetrust against the runtimes: the same cases, made from a seed, are put before
// `nodetrust verify`, `nodetrust audit`, a real CRI-O and Debian's podman, which must give the same answers. Where they
// don't, the difference is one of a short list, each with the version or mechanism that explains it
// (docs/differences.md).
package differential
