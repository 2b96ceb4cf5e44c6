package secondlook

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// Form is what the bytes of a manifest are, whatever type they were served as.
type Form int

// The forms.
const (
	// Unreadable bytes are no JSON object, or have the members of several forms.
	Unreadable Form = iota
	// Single is the manifest of one image: OCI, or Docker schema 2.
	Single
	// List is an OCI index or a Docker manifest list.
	List
	// Schema1 is Docker's first form, without a signature of its own.
	Schema1
	// SelfSigned is a manifest that carries JSON web signatures. Its digest is that of a payload, which the manifest holds
	// encoded: who reads the body trusts other bytes than those that the digest is of.
	SelfSigned
)

// typeForm is the form that a media type promises.
func typeForm(mediaType string) (Form, bool) {
	switch mediaType {
	case "application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json":
		return Single, true
	case "application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json":
		return List, true
	case "application/vnd.docker.distribution.manifest.v1+json",
		"application/vnd.docker.distribution.manifest.v1+prettyjws":
		return Schema1, true
	}
	return Unreadable, false
}

// FormOf reads what a manifest is from its members. Case is folded, because the JSON reader of runtimes folds it too:
// "Signatures" is read as "signatures".
func FormOf(manifest []byte) Form {
	m, err := object(manifest)
	if err != nil {
		return Unreadable
	}
	has := func(key string) bool {
		return slices.ContainsFunc(m, func(x member) bool {
			return strings.EqualFold(x.key, key) &&
				string(x.value) != "null"
		})
	}
	single, list, old := has("config") || has("layers"), has("manifests"), has("fsLayers") || has("history")
	switch {
	case has("signatures"):
		return SelfSigned
	case single && !list && !old:
		return Single
	case list && !single && !old:
		return List
	case old && !single && !list:
		return Schema1
	}
	return Unreadable
}

// usable reports why no runtime could take these bytes, served as this media type, for the image of one platform.
// schema1 says whether one of schema 1 may be.
func usable(manifest []byte, mediaType string, schema1 bool) error {
	promised, known := typeForm(mediaType)
	if !known { // the first manifests had no type of their own, so runtimes try schema 1
		promised = Schema1
	}
	switch form := FormOf(manifest); {
	case promised == List:
		return fmt.Errorf("it is an index inside an index")
	case form == Unreadable:
		return fmt.Errorf("it is no manifest, or several kinds at once")
	case promised == Schema1 && (form == Schema1 || form == SelfSigned):
		if !schema1 {
			return fmt.Errorf("it is of schema 1")
		}
		return blobs(manifest)
	case !known:
		return fmt.Errorf("its type is %q, which is no image's", mediaType)
	case promised != form:
		return fmt.Errorf("it is something else than the type %q it was served as", mediaType)
	}
	return blobs(manifest)
}

// blobs reports a configuration or layer whose digest can't be one.
func blobs(manifest []byte) error {
	m, err := object(manifest)
	if err != nil {
		return err
	}
	if form := FormOf(manifest); form == Single &&
		!slices.ContainsFunc(m, func(x member) bool { return strings.EqualFold(x.key, "config") }) {
		return fmt.Errorf("it has no configuration")
	}
	for _, x := range m {
		var descriptors [][]byte
		switch {
		case strings.EqualFold(x.key, "config"):
			descriptors = [][]byte{x.value}
		case strings.EqualFold(x.key, "layers"), strings.EqualFold(x.key, "fsLayers"):
			if descriptors, err = array(x.value); err != nil && string(x.value) != "null" {
				return fmt.Errorf("its layers are no list")
			}
		}
		name := "digest"
		if strings.EqualFold(x.key, "fsLayers") {
			name = "blobSum"
		}
		for _, d := range descriptors {
			if _, ok := digestIn(d, name); !ok {
				return fmt.Errorf("its %s have no digest", x.key)
			}
		}
	}
	return nil
}

// digestIn is the last member of the name, as a JSON reader that keeps the last of equal members has it.
func digestIn(b []byte, name string) (digest string, ok bool) {
	m, err := object(b)
	if err != nil {
		return "", false
	}
	for _, x := range m {
		if strings.EqualFold(x.key, name) {
			if digest, err = text(x.value); err != nil {
				return "", false
			}
		}
	}
	return digest, hashes(digest) != nil
}

// lists reports whether an index names a manifest.
func lists(index []byte, digest string) bool {
	m, err := object(index)
	if err != nil {
		return false
	}
	for _, x := range m {
		if !strings.EqualFold(x.key, "manifests") {
			continue
		}
		all, err := array(x.value)
		if err != nil {
			return false
		}
		if slices.ContainsFunc(all, func(d []byte) bool { have, ok := digestIn(d, "digest"); return ok && have == digest }) {
			return true
		}
	}
	return false
}

// hashes returns the function of a digest's algorithm; nil if the digest is none that runtimes take.
func hashes(digest string) func([]byte) string {
	algorithm, value, _ := strings.Cut(digest, ":")
	size, sum := 0, (func([]byte) string)(nil)
	switch algorithm {
	case "sha256":
		size, sum = sha256.Size, func(b []byte) string { s := sha256.Sum256(b); return hex.EncodeToString(s[:]) }
	case "sha384":
		size, sum = sha512.Size384, func(b []byte) string { s := sha512.Sum384(b); return hex.EncodeToString(s[:]) }
	case "sha512":
		size, sum = sha512.Size, func(b []byte) string { s := sha512.Sum512(b); return hex.EncodeToString(s[:]) }
	}
	if len(value) != 2*size || strings.Trim(value, "0123456789abcdef") != "" {
		return nil
	}
	return sum
}

// has reports whether a digest is that of these very bytes: no part of them is left out, and nothing is decoded.
func has(raw []byte, digest string) bool {
	sum := hashes(digest)
	if sum == nil {
		return false
	}
	_, value, _ := strings.Cut(digest, ":")
	return sum(raw) == value
}
