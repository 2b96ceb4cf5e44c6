// Command nodetrust renders, checks and explains image signature policies of nodes.
package main

import (
	"context"
	"os"
	"os/signal"
	"runtime/debug"
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

// Memory in bytes that the collector keeps the process below while images are judged, as far as it can: with what is
// mapped of the program itself the whole stays below 128 MiB. An image in the list of an audit takes some KiB until
// the report is written.
const (
	judgingMemory = 64 << 20
	imageMemory   = 12 << 10
)

// singlePercent has the collector run less often than it does by itself where one image is judged: there is nothing
// to save, and judging is over before it has to.
const singlePercent = 200

// limitMemory limits the memory for judging images, one if the number is 0. $GOMEMLIMIT and $GOGC take precedence.
func limitMemory(images int) {
	percent := 100
	if images == 0 {
		percent = singlePercent
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(judgingMemory + int64(images)*imageMemory)
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(percent)
	}
}
