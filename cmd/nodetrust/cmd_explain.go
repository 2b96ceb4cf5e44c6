package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/nodetrust/nodetrust/internal/cli"
	"github.com/nodetrust/nodetrust/internal/verdict"
	"github.com/nodetrust/nodetrust/internal/verify"
)

func newExplainCommand(env verify.Env) *cobra.Command {
	judging := judgingCommand{policy: policyFlags{env: env}}
	cmd := &cobra.Command{
		Use:   "explain IMAGE",
		Short: "Tell the whole story of a verdict",
		Long: `Judges an image as verify does, and tells how the answer came about: the files that count and those that they mask, the
scope of policy.json that was chosen and those that it hides, each requirement, every URL that was asked and what came of it,
and of each signature who made it, for what, and why it was or wasn't accepted. The last lines are the verdict in a sentence,
and what to do next. Where a signature is missing, the registry is asked some more to find out why; that never changes a verdict.

With --offline neither registry nor lookaside is asked: only what the policy says of the image is told.

JSON is that of verify, with more fields; the exit status is the same.`,
		Example: "  nodetrust explain registry.redhat.io/ubi9/ubi:latest\n  nodetrust explain --offline --config trust.yaml quay.io/corp/app:v1",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return judging.run(cmd, args[0], func(ctx context.Context, j *verify.Judge, image verify.Image) (judged, error) {
				s, err := j.Explain(ctx, image)
				s.Verdict = judging.demanded(s.Verdict)
				if config := judging.policy.config; config != "" {
					s.Files.Notes = append(s.Files.Notes, "these are what "+config+" renders to, not files of a host")
				}
				return judged{s.Verdict, func(w io.Writer) error { return cli.Write(judging.out, w, s, writeStory) }}, err
			})
		},
	}
	judging.add(cmd)
	cmd.Flags().BoolVar(&judging.offline, "offline", false, "ask neither registry nor lookaside")
	return cmd
}

// writeStory is the text of explain: what was judged, by which files, where was looked, what was found, and the
// verdict.
func writeStory(w *cli.Screen, s verify.Story) {
	line := func(format string, args ...any) { fmt.Fprintf(w, format+"\n", args...) }
	line("image         %s", s.Image)
	if s.Judged != "" {
		line("  judged      %s", s.Judged)
	}
	if s.Index != "" {
		line("  index       %s", s.Index)
		line("  platform    %s", s.Platform)
	}
	if s.Digest != "" {
		line("  manifest    %s", s.Digest)
	}
	for i, place := range s.Places {
		if i == 0 {
			line("  places      %s (%s)", place, s.Files.RegistriesConf)
			continue
		}
		line("    then      %s", place)
	}
	if s.From != "" {
		line("  served by   %s: lookaside and attachments are looked up by this name", s.From)
	}
	writeSources(line, s.Files)
	line("")
	line("scope         %s", scopeText(*s.Scope))
	for _, h := range s.Hides {
		line("  hides       %s", scopeText(h))
	}
	switch l := s.Lookaside; {
	case s.Local:
		line("lookaside     not asked: signatures are beside the image, on this machine")
	case l != nil:
		line("lookaside     %s (%s)", l.URL, cmp.Or(l.File, "built-in default: registries.d names none"))
		if s.Extension {
			line("  not asked   the registry serves signatures itself: it sends X-Registry-Supports-Signatures: 1")
		}
		line("attachments   %s", map[bool]string{true: "read (use-sigstore-attachments)", false: "not read"}[s.Attachments])
	}
	writeAsked(line, s.Asked)
	for i, r := range s.Requirements {
		writeRequirement(line, fmt.Sprintf("%d of %d", i+1, len(s.Requirements)), r, s.Details[i])
	}
	line("")
	writeVerdict(w, s.Verdict)
}

func writeSources(line func(string, ...any), f verify.Sources) {
	line("policy        %s", f.Policy)
	masked := map[string][]string{}
	for _, m := range f.Masked {
		masked[m.By] = append(masked[m.By], m.Path)
	}
	masks := func(by string) {
		for _, path := range masked[by] {
			line("  masked      %s", path)
		}
		delete(masked, by)
	}
	masks(f.Policy)
	for _, path := range f.RegistriesD {
		line("registries.d  %s", path)
		masks(path)
	}
	if len(f.RegistriesD) == 0 {
		line("registries.d  (no file)")
	}
	for _, m := range f.Masked { // by a directory
		for _, path := range masked[m.By] {
			line("  masked      %s, by the directory %s", path, m.By)
		}
		delete(masked, m.By)
	}
	if f.RegistriesConf != "" {
		line("registries    %s", f.RegistriesConf)
	}
	for _, n := range f.Notes {
		line("  note        %s", n)
	}
}

func writeAsked(line func(string, ...any), asked []verify.Asked) {
	for i, a := range asked {
		switch {
		case i == 0 && !a.After:
			line("\nasked")
		case a.After && (i == 0 || !asked[i-1].After):
			line("\nasked to explain, after the verdict")
		}
		line("  %s", a.URL)
		line("    %s", a.Answer)
	}
}

func writeRequirement(line func(string, ...any), number string, r verdict.Requirement, d verify.Detail) {
	line("\nrequirement   %s: %s", number, r.Type)
	line("  verdict     %s%s", r.Answer, because(r.Reason))
	if d.Problem != "" {
		line("  problem     %s", d.Problem)
	}
	if d.Identity != "" {
		line("  identity    %s", d.Identity)
	}
	for _, k := range d.Keys {
		line("  key         %s", k)
	}
	for _, s := range r.Signatures {
		line("  signature   %s", s.Source)
		line("    verdict   %s%s", s.Answer, because(s.Reason))
		if s.Message != "" {
			line("    why       %s", s.Message)
		}
		for _, f := range []struct{ name, value string }{
			{"signer", s.Signer},
			{"digest", s.Digest},
			{"reference", s.Reference},
		} {
			if f.value != "" {
				line("    %-9s %s", f.name, f.value)
			}
		}
		if s.Packet != 0 {
			line("    packet    OpenPGP v%d", s.Packet)
		}
		if !s.Expires.IsZero() {
			line("    expires   %s", s.Expires.Format(time.RFC3339))
		}
	}
}

func because[R ~string](r R) string {
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
