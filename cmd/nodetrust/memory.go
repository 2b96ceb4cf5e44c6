package main

import (
	"os"
	"runtime/debug"
)

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

// limitMemory limits the memory for judging images, one unless a number is given. $GOMEMLIMIT and $GOGC are the
// user's word.
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
