// Command sbom writes an SPDX 2.3 document of each program beside its name: the modules that the Go linker recorded
// in it, which is what is really in it, and the digest of the program. The same program always gives the same bytes.
//
// cyclonedx-gomod, the usual tool, could not be had from a module proxy when this was written; all it would read is
// what debug/buildinfo reads here. Packages of the base image (gpgme, gnupg) are that image's SBOM's matter.
package main

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"strings"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "sbom: error:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	fs := flag.NewFlagSet("sbom", flag.ContinueOnError)
	out := fs.String("o", ".", "write to `DIR`")
	if err := fs.Parse(args); err != nil {
		return err
	}
	for _, program := range fs.Args() {
		doc, err := describe(program)
		if err != nil {
			return fmt.Errorf("reading %s: %w", program, err)
		}
		b, err := json.MarshalIndent(doc, "", "  ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(*out, filepath.Base(program)+".spdx.json"), append(b, '\n'), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// document is what is used of https://spdx.github.io/spdx-spec/v2.3/.
type document struct {
	Version   string `json:"spdxVersion"`
	License   string `json:"dataLicense"`
	ID        string `json:"SPDXID"`
	Name      string `json:"name"`
	Namespace string `json:"documentNamespace"`
	Creation  struct {
		Created  string   `json:"created"`
		Creators []string `json:"creators"`
	} `json:"creationInfo"`
	Packages      []pkg          `json:"packages"`
	Relationships []relationship `json:"relationships"`
}

type pkg struct {
	ID         string     `json:"SPDXID"`
	Name       string     `json:"name"`
	Version    string     `json:"versionInfo"`
	Download   string     `json:"downloadLocation"`
	Analyzed   bool       `json:"filesAnalyzed"`
	Concluded  string     `json:"licenseConcluded"`
	Declared   string     `json:"licenseDeclared"`
	Copyright  string     `json:"copyrightText"`
	Purpose    string     `json:"primaryPackagePurpose"`
	Checksums  []checksum `json:"checksums,omitempty"`
	References []external `json:"externalRefs,omitempty"`
}

type checksum struct {
	Algorithm string `json:"algorithm"`
	Value     string `json:"checksumValue"`
}

type external struct {
	Category string `json:"referenceCategory"`
	Type     string `json:"referenceType"`
	Locator  string `json:"referenceLocator"`
}

type relationship struct {
	From string `json:"spdxElementId"`
	Type string `json:"relationshipType"`
	To   string `json:"relatedSpdxElement"`
}

func describe(program string) (*document, error) {
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(program)
	if err != nil {
		return nil, err
	}
	sum := fmt.Sprintf("%x", sha256.Sum256(b))
	name := filepath.Base(program)
	main := element(name, info.Main.Version, "APPLICATION")
	main.ID = "SPDXRef-Program"
	main.Declared = "Apache-2.0"
	main.Checksums = []checksum{{"SHA256", sum}}
	doc := &document{
		Version: "SPDX-2.3", License: "CC0-1.0", ID: "SPDXRef-DOCUMENT", Name: name,
		Namespace: "https://nodetrust.io/spdx/" + name + "/" + sum,
		Packages:  []pkg{main},
	}
	doc.Creation.Created = "1970-01-01T00:00:00Z" // not of this run: same program, same bytes
	doc.Creation.Creators = []string{"Tool: nodetrust-sbom"}
	doc.Relationships = append(doc.Relationships, relationship{doc.ID, "DESCRIBES", main.ID})
	std := element("stdlib", strings.TrimPrefix(info.GoVersion, "go"), "LIBRARY")
	std.Declared = "BSD-3-Clause"
	std.References = []external{{"PACKAGE-MANAGER", "purl", "pkg:golang/stdlib@" + std.Version}}
	deps := []pkg{std}
	for _, m := range info.Deps {
		deps = append(deps, module(m))
	}
	for _, d := range deps {
		doc.Packages = append(doc.Packages, d)
		doc.Relationships = append(doc.Relationships, relationship{main.ID, "DEPENDS_ON", d.ID})
	}
	return doc, nil
}

func module(m *debug.Module) pkg {
	if m.Replace != nil {
		m = m.Replace
	}
	p := element(m.Path, m.Version, "LIBRARY")
	p.References = []external{{"PACKAGE-MANAGER", "purl", "pkg:golang/" + m.Path + "@" + m.Version}}
	return p
}

var outsideID = regexp.MustCompile(`[^A-Za-z0-9.-]`)

func element(name, version, purpose string) pkg {
	const none = "NOASSERTION"
	if version == "" {
		version = "(devel)"
	}
	return pkg{
		ID: "SPDXRef-" + outsideID.ReplaceAllString(name+"-"+version, "-"), Name: name, Version: version,
		Download: none, Concluded: none, Declared: none, Copyright: none, Purpose: purpose,
	}
}
