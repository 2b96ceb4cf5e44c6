package main

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
)

// TestRun describes the agent as it is built here: every module that the linker recorded, and no other.
func TestRun(t *testing.T) {
	program := filepath.Join(t.TempDir(), "nodetrust-agent")
	if out, err := exec.Command("go", "build", "-o", program, "../../cmd/nodetrust-agent").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	write := func() []byte {
		dir := t.TempDir()
		if err := run([]string{"-o", dir, program}); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(dir, "nodetrust-agent.spdx.json"))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	b := write()
	if !bytes.Equal(b, write()) {
		t.Error("the same program gives other bytes")
	}
	var doc document
	if err := json.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	if doc.Version != "SPDX-2.3" || doc.License != "CC0-1.0" || doc.ID != "SPDXRef-DOCUMENT" {
		t.Errorf("head %q %q %q", doc.Version, doc.License, doc.ID)
	}
	bin, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(bin)
	if c := doc.Packages[0].Checksums; len(c) != 1 || c[0] != (checksum{"SHA256", hex.EncodeToString(sum[:])}) {
		t.Errorf("checksum of the program: %v", c)
	}
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"nodetrust-agent": doc.Packages[0].Version, "stdlib": info.GoVersion[len("go"):]}
	for _, m := range info.Deps {
		want[m.Path] = m.Version
	}
	id := regexp.MustCompile(`^SPDXRef-[A-Za-z0-9.-]+$`) // of the specification
	ids := map[string]bool{doc.ID: true}
	for _, p := range doc.Packages {
		if ids[p.ID] || !id.MatchString(p.ID) {
			t.Errorf("%s: id %q is not allowed, or is there twice", p.Name, p.ID)
		}
		ids[p.ID] = true
		if v, ok := want[p.Name]; !ok || v != p.Version {
			t.Errorf("%s %s, the program has %q", p.Name, p.Version, v)
		}
		delete(want, p.Name)
	}
	if len(want) > 0 {
		t.Errorf("not described: %v", want)
	}
	if len(doc.Relationships) != len(doc.Packages) {
		t.Errorf("%d relationships of %d packages", len(doc.Relationships), len(doc.Packages))
	}
	for _, r := range doc.Relationships {
		if !ids[r.From] || !ids[r.To] {
			t.Errorf("%v is of something that is not described", r)
		}
	}
}

func TestRun_noProgram(t *testing.T) {
	dir := t.TempDir()
	if err := run([]string{"-o", dir, "main.go"}); err == nil {
		t.Error("a source file is described")
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left: %v %v", left, err)
	}
}
