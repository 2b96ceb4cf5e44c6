package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/nodetrust/nodetrust/verdict"
	"github.com/nodetrust/nodetrust/verify"
)

func newExplainCommand() *cobra.Command {
	var judging judgingCommand
	var offline bool
	cmd := &cobra.Command{
		Use:   "explain IMAGE",
		Short: "Tell the whole story of a verdict",
		Long: `Judges an image as verify does, and tells how the answer came about: the files that count and those that they mask, the
scope of policy.json that was chosen and those that it hides, each requirement, where signatures were looked up, and of each
signature who made it, for what, and why it was or wasn't accepted. The last line says what to do next.

With --offline neither registry nor lookaside is asked: only what the policy says of the image is told.

JSON and exit status are those of verify.`,
		Example: "  nodetrust explain registry.redhat.io/ubi9/ubi:latest\n  nodetrust explain --offline --config trust.yaml quay.io/corp/app:v1",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			judge := verify.Image
			if offline {
				judge = verify.Offline
			}
			return judging.run(cmd, args[0], judge, func(w io.Writer, p *verify.Policy, v verdict.Verdict) error {
				_, err := io.WriteString(w, story(p, v, p.Hidden(args[0], judging.image.options().As), offline))
				return err
			})
		},
	}
	judging.add(cmd)
	cmd.Flags().BoolVar(&offline, "offline", false, "ask neither registry nor lookaside")
	return cmd
}

// story is the text of explain.
func story(p *verify.Policy, v verdict.Verdict, hidden []verdict.Scope, offline bool) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("image         %s", v.Image)
	if v.Index != "" {
		line("  index       %s", v.Index)
	}
	if v.Digest != "" {
		line("  manifest    %s", v.Digest)
	}
	line("policy        %s", p.File)
	for _, f := range p.RegistriesD {
		line("registries.d  %s", f)
	}
	if p.RegistriesConf != "" {
		line("registries    %s", p.RegistriesConf)
	}
	for _, f := range p.Masked {
		line("  masked      %s", f)
	}
	line("scope         %s", scopeText(*v.Scope))
	for _, s := range hidden {
		line("  hides       %s", scopeText(s))
	}
	if l := v.Lookaside; l != nil {
		from := l.File
		if from == "" {
			from = "built-in default"
		}
		line("lookaside     %s (%s)", l.URL, from)
		if v.Digest != "" && !offline && !strings.HasPrefix(v.Image, "dir:") && !strings.HasPrefix(v.Image, "oci:") && !servedByRegistry(v) {
			line("  asked       %s@%s/signature-1, -2, … until 404", l.URL, strings.Replace(v.Digest, ":", "=", 1))
		}
	}
	for i, r := range v.Requirements {
		line("requirement %d %s: %s%s", i+1, r.Type, r.Verdict, because(r.Reason))
		for _, k := range r.Keys {
			line("  key         %s", k)
		}
		if r.Identity != "" {
			line("  identity    %s", r.Identity)
		}
		for _, s := range r.Signatures {
			line("  signature   %s", s.Source)
			line("    %s%s", s.Verdict, because(s.Reason))
			if s.Message != "" {
				line("    %s", s.Message)
			}
			line("    signer    %s", s.Signer)
			if s.Packet != 0 {
				line("    packet    OpenPGP v%d", s.Packet)
			}
			line("    digest    %s", s.Digest)
			line("    reference %s", s.Reference)
		}
	}
	line("")
	if err := writeVerdict(&b, v); err != nil {
		return err.Error()
	}
	return b.String()
}

// servedByRegistry is true when the registry was asked for signatures instead of the lookaside.
func servedByRegistry(v verdict.Verdict) bool {
	for _, r := range v.Requirements {
		for _, s := range r.Signatures {
			if r.Type == "signedBy" && !strings.HasPrefix(s.Source, v.Lookaside.URL) {
				return true
			}
		}
	}
	return strings.Contains(v.Message, "X-Registry-Supports-Signatures")
}

func because(r verdict.Reason) string {
	if r == "" {
		return ""
	}
	return " (" + string(r) + ")"
}

func scopeText(s verdict.Scope) string {
	switch s.Matched {
	case "default":
		return "the policy's default"
	case "transport-default":
		return fmt.Sprintf("the default of transport %s", s.Transport)
	}
	return fmt.Sprintf("%s (%s, transport %s)", s.Name, s.Matched, s.Transport)
}
