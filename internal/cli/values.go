package cli

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// value is a flag whose text is checked by set.
type value struct {
	typ  string
	text func() string
	set  func(string) error
}

func (v *value) String() string     { return v.text() }
func (v *value) Type() string       { return v.typ }
func (v *value) Set(s string) error { return v.set(s) }

// Limit returns the value of a flag that is a number from 1 to most.
func Limit(n *int, most int) pflag.Value {
	return &value{"int", func() string { return strconv.Itoa(*n) }, func(s string) error {
		i, err := strconv.Atoi(s)
		if err != nil || i < 1 || i > most {
			return fmt.Errorf("must be 1 to %d", most)
		}
		*n = i
		return nil
	}}
}

// Deadline returns the value of a flag that is a time in which something must end. Every network request has one.
func Deadline(d *time.Duration) pflag.Value {
	return &value{"duration", func() string { return d.String() }, func(s string) error {
		t, err := time.ParseDuration(s)
		if err != nil || t <= 0 {
			return errors.New("must be a time above 0, for example 30s or 2m")
		}
		*d = t
		return nil
	}}
}

// Choice adds a flag that is one of choices, which a shell completes.
func Choice(cmd *cobra.Command, to *string, name, short, typ, usage string, choices ...string) {
	cmd.Flags().VarP(&value{typ, func() string { return *to }, func(s string) error {
		if !slices.Contains(choices, s) {
			return errors.New("must be " + Either(choices))
		}
		*to = s
		return nil
	}}, name, short, usage)
	Complete(cmd, name, choices...)
}

// Complete has a shell offer words behind a flag, and no files.
func Complete(cmd *cobra.Command, flag string, words ...string) {
	_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp))
}

// Either returns "a, b or c".
func Either(words []string) string {
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}
