// Command app is all there is in the test's images: a pause container that
// waits, or, as "app serve", an application that prints numbered lines.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	tick := time.NewTicker(200 * time.Millisecond)
	for n := 0; ; n++ {
		select {
		case <-stop:
			return
		case <-tick.C:
			if len(os.Args) > 1 && os.Args[1] == "serve" {
				fmt.Println("order", n)
			}
		}
	}
}
