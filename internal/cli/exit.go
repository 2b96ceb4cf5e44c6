// Package cli is what every command of a program shares: exit statuses, messages on standard error, output formats,
// and what a terminal shows (tables, progress, help).
//
// Everything that is written goes through a Writer of package outside: no text from a file or a server can command the
// terminal.
package cli

import (
	"errors"
	"fmt"
)

// Exit statuses of every command.
const (
	ExitOK      = 0
	ExitFailed  = 1 // the operation failed
	ExitUsage   = 2 // bad usage or invalid input
	ExitRefused = 3 // refused, drifted or error findings
	ExitUnknown = 4 // could not tell
)

// ExitError ends a command with a status. A nil Err means that the command has said all there is to say.
type ExitError struct {
	Code int
	Err  error
	// Hint is the text of a line "nodetrust: hint: …" below the error.
	Hint string
}

func (e *ExitError) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("exit status %d", e.Code)
	}
	return e.Err.Error()
}

func (e *ExitError) Unwrap() error { return e.Err }

// Usagef returns an error of bad usage or invalid input: exit status 2.
func Usagef(format string, args ...any) error {
	return &ExitError{Code: ExitUsage, Err: fmt.Errorf(format, args...)}
}

// Usage wraps err as bad usage or invalid input: exit status 2, unless err has a status already.
func Usage(err error) error {
	if _, ok := errors.AsType[*ExitError](err); ok {
		return err
	}
	return &ExitError{Code: ExitUsage, Err: err}
}

// WithHint adds a line "nodetrust: hint: …" below the error.
func WithHint(err error, hint string) error {
	if e, ok := errors.AsType[*ExitError](err); ok {
		return &ExitError{Code: e.Code, Err: e.Err, Hint: hint}
	}
	return &ExitError{Code: ExitFailed, Err: err, Hint: hint}
}

// Exit ends the command with a status after its result has been written.
func Exit(code int) error {
	if code == ExitOK {
		return nil
	}
	return &ExitError{Code: code}
}

// ExitOf returns the exit status that err ends a command with.
func ExitOf(err error) int {
	if err == nil {
		return ExitOK
	}
	if e, ok := errors.AsType[*ExitError](err); ok {
		return e.Code
	}
	return ExitFailed
}
