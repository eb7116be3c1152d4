// Command writer is what runs in the containers of the test.
//
//	writer pause                          wait for SIGTERM (the pod's sandbox)
//	writer lines <id> <count> <rate>      print lines, so many a second, then the last one
//
// On SIGTERM it ends after the line it is at, and prints the last one.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/longhaul/longhaul/test/containers/line"
)

// aliveAtMost bounds what a test leaves behind that was killed itself.
const aliveAtMost = 15 * time.Minute

func main() {
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM, syscall.SIGINT)
	var err error
	switch {
	case len(os.Args) == 2 && os.Args[1] == "pause":
		select {
		case <-term:
		case <-time.After(aliveAtMost):
		}
	case len(os.Args) == 5 && os.Args[1] == "lines":
		err = print(os.Args[2], os.Args[3], os.Args[4], term)
	default:
		err = fmt.Errorf("usage: writer pause | writer lines ID COUNT RATE")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "writer:", err)
		os.Exit(1)
	}
}

func print(id, countText, rateText string, term <-chan os.Signal) error {
	count, err := strconv.Atoi(countText)
	if err != nil {
		return err
	}
	rate, err := strconv.Atoi(rateText)
	if err != nil {
		return err
	}
	began := time.Now()
	n := 0
	for stopped := false; n < count && !stopped; {
		due := began.Add(time.Duration(n) * time.Second / time.Duration(rate))
		select {
		case <-term:
			stopped = true
			continue
		case <-time.After(time.Until(due)):
		}
		to := os.Stdout
		if line.Stderr(n) {
			to = os.Stderr
		}
		if _, err := to.WriteString(line.Text(id, n) + "\n"); err != nil {
			return err
		}
		n++
	}
	_, err = fmt.Println(line.End(id, n))
	return err
}
