// Command nodetrust renders, checks and explains image signature policies of nodes.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/nodetrust/nodetrust/internal/cli"
)

// lastWords is how long an interrupted command may take to end in order. Some things can't be interrupted: opening a
// named pipe that nobody writes to is one.
const lastWords = 10 * time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop() // never: a signal that comes after the work is done must not change the exit status
	context.AfterFunc(ctx, func() {
		time.Sleep(lastWords)
		os.Exit(cli.ExitFailed)
	})
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
