package main

import (
	"errors"
	"fmt"
)

// Exit statuses of every command.
const (
	exitOK      = 0
	exitFailed  = 1 // the operation failed
	exitUsage   = 2 // bad usage or invalid input
	exitRefused = 3 // refused, drifted or error findings
	exitUnknown = 4 // could not tell
)

// kubeconfigHint goes with a cluster that isn't named.
const kubeconfigHint = "name a cluster with --kubeconfig, $KUBECONFIG or --context"

// exitError ends a command with a status. A nil err means that the command has said all there is to say.
type exitError struct {
	code int
	err  error
	hint string
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// usagef is bad usage or invalid input: exit status 2.
func usagef(format string, args ...any) error {
	return &exitError{code: exitUsage, err: fmt.Errorf(format, args...)}
}

// usageErr wraps err as bad usage or invalid input: exit status 2, unless it has a status already. Errors that join
// several are printed one a line.
func usageErr(err error) error {
	if e := (*exitError)(nil); errors.As(err, &e) {
		return err
	}
	return &exitError{code: exitUsage, err: err}
}

// withHint adds a line "nodetrust: hint: …" below the error.
func withHint(err error, hint string) error {
	var e *exitError
	if errors.As(err, &e) {
		return &exitError{code: e.code, err: e.err, hint: hint}
	}
	return &exitError{code: exitFailed, err: err, hint: hint}
}

// silent ends the command with a status after its result has been written.
func silent(code int) error {
	if code == exitOK {
		return nil
	}
	return &exitError{code: code}
}
