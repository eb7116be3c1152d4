package lab

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
)

// Below Linux's default ephemeral range (32768–60999), so that no outgoing
// connection takes the port of a process that is down for a moment, and a
// client that redials a dead port cannot connect to itself.
const (
	firstPort = 20000
	lastPort  = 32000
)

// ErrNoPort says that no free port was found on loopback.
var ErrNoPort = errors.New("no free port on 127.0.0.1")

var handedOut struct {
	sync.Mutex
	ports map[int]bool
}

// FreePort returns a TCP port that is free on loopback and that it has not
// returned before in this process.
func FreePort() (int, error) {
	handedOut.Lock()
	defer handedOut.Unlock()
	if handedOut.ports == nil {
		handedOut.ports = make(map[int]bool)
	}
	for range 1000 {
		port := firstPort + rand.IntN(lastPort-firstPort)
		if handedOut.ports[port] || !portIsFree(port) {
			continue
		}
		handedOut.ports[port] = true
		return port, nil
	}
	return 0, fmt.Errorf("%w between %d and %d", ErrNoPort, firstPort, lastPort)
}

func portIsFree(port int) bool {
	l, err := net.Listen("tcp", loopback(port))
	if err != nil {
		return false
	}
	_ = l.Close()
	return true
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// choosePorts replaces every zero by a free port and reports a chosen port that
// is in use.
func choosePorts(owner string, ports ...*int) error {
	for _, p := range ports {
		if *p == 0 {
			free, err := FreePort()
			if err != nil {
				return fmt.Errorf("%s: %w", owner, err)
			}
			*p = free
		} else if !portIsFree(*p) {
			return fmt.Errorf("%s: port %d on 127.0.0.1 is in use by another program; stop it or choose another port", owner, *p)
		}
	}
	return nil
}
