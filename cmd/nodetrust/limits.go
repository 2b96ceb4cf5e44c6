package main

import (
	"errors"
	"fmt"
	"strconv"
	"time"
)

// limitFlag is a number from 1 to most.
type limitFlag struct {
	n    *int
	most int
}

func (f *limitFlag) String() string { return strconv.Itoa(*f.n) }
func (f *limitFlag) Type() string   { return "int" }

func (f *limitFlag) Set(s string) error {
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > f.most {
		return fmt.Errorf("must be 1 to %d", f.most)
	}
	*f.n = n
	return nil
}

// deadlineFlag is a time in which something must end: there is no way to ask a network without one.
type deadlineFlag struct{ d *time.Duration }

func (f *deadlineFlag) String() string { return f.d.String() }
func (f *deadlineFlag) Type() string   { return "duration" }

func (f *deadlineFlag) Set(s string) error {
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return errors.New("must be a time above 0, for example 30s or 2m")
	}
	*f.d = d
	return nil
}
