// Command backends builds Loki, Prometheus and Jaeger from their modules under
// test/backends into the cache that the demo and the end-to-end tests use, one
// after the other. Names given as arguments restrict it to those. It does
// nothing for a backend that is there already.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/longhaul/longhaul/internal/lab"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	names := os.Args[1:]
	if len(names) == 0 {
		names = lab.BackendNames
	}
	builder := lab.Builder{Progress: func(e lab.Event) { fmt.Println(e) }}
	for _, name := range names {
		path, err := builder.Binary(ctx, name)
		if err != nil {
			fmt.Fprintln(os.Stderr, "backends:", err)
			os.Exit(1)
		}
		fmt.Println(path)
	}
}
