// Command program is one that has the image library in it.
package main

import (
	"fmt"

	"go.podman.io/image/v5/version"
)

func main() { fmt.Println(version.Version) }
