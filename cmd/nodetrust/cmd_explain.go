package main

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/nodetrust/nodetrust/internal/cli"
	"github.com/nodetrust/nodetrust/internal/verdict"
	"github.com/nodetrust/nodetrust/internal/verify"
	"github.com/nodetrust/nodetrust/internal/verify/explain"
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
			return judging.run(cmd, args[0], func(ctx context.Context, j *verify.Judge, image verify.Image) (
				verdict.Verdict, func() error, error,
			) {
				s, err := j.Explain(ctx, image)
				s.Verdict = judging.demanded(s.Verdict)
				if config := judging.policy.config; config != "" {
					s.Files.Notes = append(s.Files.Notes, "these are what "+config+" renders to, not files of a host")
				}
				return s.Verdict, func() error { return cli.Write(judging.out, cmd.OutOrStdout(), s, writeStory) }, err
			})
		},
	}
	judging.add(cmd)
	cmd.Flags().BoolVar(&judging.offline, "offline", false, "ask neither registry nor lookaside")
	return cmd
}

// storyText writes the text of explain.
type storyText struct{ *cli.Screen }

func (w storyText) line(format string, args ...any) { fmt.Fprintf(w, format+"\n", args...) }

// some writes a line about text, if there is any.
func (w storyText) some(format, text string) {
	if text != "" {
		w.line(format, text)
	}
}

// writeStory writes what was judged, by which files, where was looked, what was found, and the verdict.
func writeStory(screen *cli.Screen, s explain.Story) {
	w := storyText{screen}
	w.line("image         %s", s.Image)
	w.some("  judged      %s", s.Judged)
	if s.Index != "" {
		w.line("  index       %s\n  platform    %s", s.Index, s.Platform)
	}
	w.some("  manifest    %s", s.Digest)
	for i, place := range s.Places {
		if i == 0 {
			w.line("  places      %s (%s)", place, s.Files.RegistriesConf)
			continue
		}
		w.line("    then      %s", place)
	}
	w.some("  served by   %s: lookaside and attachments are looked up by this name", s.From)
	w.sources(s.Files)
	w.line("\nscope         %s", scopeText(*s.Scope))
	for _, h := range s.Hides {
		w.line("  hides       %s", scopeText(h))
	}
	switch l := s.Lookaside; {
	case s.Local:
		w.line("lookaside     not asked: signatures are beside the image, on this machine")
	case l != nil:
		w.line("lookaside     %s (%s)", l.URL, cmp.Or(l.File, "built-in default: registries.d names none"))
		if s.Extension {
			w.line("  not asked   the registry serves signatures itself: it sends X-Registry-Supports-Signatures: 1")
		}
		w.line("attachments   %s", map[bool]string{true: "read (use-sigstore-attachments)", false: "not read"}[s.Attachments])
	}
	w.asked(s.Asked)
	for i, r := range s.Requirements {
		w.requirement(fmt.Sprintf("%d of %d", i+1, len(s.Requirements)), r, s.Details[i])
	}
	w.line("")
	writeVerdict(screen, s.Verdict)
}

func (w storyText) sources(f explain.Sources) {
	w.line("policy        %s", f.Policy)
	masked := map[string][]string{}
	for _, m := range f.Masked {
		masked[m.By] = append(masked[m.By], m.Path)
	}
	masks := func(by, more string) {
		for _, path := range masked[by] {
			w.line("  masked      %s%s", path, more)
		}
		delete(masked, by)
	}
	masks(f.Policy, "")
	for _, path := range f.RegistriesD {
		w.line("registries.d  %s", path)
		masks(path, "")
	}
	if len(f.RegistriesD) == 0 {
		w.line("registries.d  (no file)")
	}
	for _, m := range f.Masked {
		masks(m.By, ", by the directory "+m.By)
	}
	w.some("registries    %s", f.RegistriesConf)
	for _, n := range f.Notes {
		w.line("  note        %s", n)
	}
}

func (w storyText) asked(asked []explain.Request) {
	for i, a := range asked {
		switch {
		case i == 0 && !a.After:
			w.line("\nasked")
		case a.After && (i == 0 || !asked[i-1].After):
			w.line("\nasked to explain, after the verdict")
		}
		w.line("  %s\n    %s", a.URL, a.Answer)
	}
}

func (w storyText) requirement(number string, r verdict.Requirement, d explain.Detail) {
	w.line("\nrequirement   %s: %s", number, r.Type)
	w.line("  verdict     %s%s", r.Answer, because(r.Reason))
	w.some("  problem     %s", d.Problem)
	w.some("  identity    %s", d.Identity)
	for _, k := range d.Keys {
		w.line("  key         %s", k)
	}
	for _, s := range r.Signatures {
		w.line("  signature   %s", s.Source)
		w.line("    verdict   %s%s", s.Answer, because(s.Reason))
		w.some("    why       %s", s.Message)
		w.some("    signer    %s", s.Signer)
		w.some("    digest    %s", s.Digest)
		w.some("    reference %s", s.Reference)
		if s.Packet != 0 {
			w.line("    packet    OpenPGP v%d", s.Packet)
		}
		if !s.Expires.IsZero() {
			w.line("    expires   %s", s.Expires.Format(time.RFC3339))
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
