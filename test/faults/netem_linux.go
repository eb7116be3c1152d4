package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// netemShape is what the kernel does to each packet, in each direction: 300 ms
// there and back.
var netemShape = []string{"netem", "delay", "150ms", "loss", "30%"}

// netemNet is the range for benchmarks (RFC 2544), of which each process takes a
// network of four addresses: two of them on one machine must not meet.
var netemNet = netip.MustParsePrefix("198.18.0.0/15")

// netemAddresses returns the addresses of the two ends.
func netemAddresses(pid int) (near, far netip.Addr) {
	base := binary.BigEndian.Uint32(netemNet.Addr().AsSlice())
	at := base + uint32(pid)%(1<<15)*4
	address := func(n uint32) netip.Addr {
		return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, n)))
	}
	return address(at + 1), address(at + 2)
}

// netns is a network namespace behind a pair of virtual interfaces whose packets
// are late and get lost. What listens in it is reached over that.
type netns struct {
	name, near, far string
	address         netip.Addr // of the far end
}

// newNetns makes the namespace, with shape as the queueing discipline of both
// ends. It needs root, ip and tc, and the discipline in the kernel.
func newNetns(shape []string) (n *netns, err error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("a network namespace needs root")
	}
	id := fmt.Sprintf("lh%d", os.Getpid())
	near, far := netemAddresses(os.Getpid())
	made := &netns{name: id, near: id + "n", far: id + "f", address: far}
	defer func() {
		if err != nil {
			made.close()
		}
	}()
	inside := []string{"ip", "netns", "exec", made.name}
	for _, command := range [][]string{
		{"ip", "netns", "add", made.name},
		{"ip", "link", "add", made.near, "type", "veth", "peer", "name", made.far, "netns", made.name},
		{"ip", "addr", "add", near.String() + "/30", "dev", made.near},
		{"ip", "link", "set", made.near, "up"},
		append(inside, "ip", "addr", "add", far.String()+"/30", "dev", made.far),
		append(inside, "ip", "link", "set", made.far, "up"),
		append([]string{"tc", "qdisc", "add", "dev", made.near, "root"}, shape...),
		append(append(inside, "tc", "qdisc", "add", "dev", made.far, "root"), shape...),
	} {
		if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("%s: %w: %s", strings.Join(command, " "), err, strings.TrimSpace(string(out)))
		}
	}
	return made, nil
}

// clear takes the trouble away.
func (n *netns) clear() {
	_ = exec.Command("tc", "qdisc", "del", "dev", n.near, "root").Run() // goes with the namespace otherwise
	_ = exec.Command("ip", "netns", "exec", n.name, "tc", "qdisc", "del", "dev", n.far, "root").Run()
}

func (n *netns) close() {
	_ = exec.Command("ip", "link", "del", n.near).Run() // mostly it is there; its peer goes with it
	_ = exec.Command("ip", "netns", "del", n.name).Run()
}

// listen listens in the namespace. A socket stays where it was made, whatever
// thread uses it.
func (n *netns) listen() (listener net.Listener, err error) {
	there, err := os.Open("/run/netns/" + n.name)
	if err != nil {
		return nil, err
	}
	defer there.Close()
	made := make(chan error)
	go func() {
		// The thread is not used for anything else again: it ends with the goroutine.
		runtime.LockOSThread()
		err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET)
		if err == nil {
			listener, err = net.Listen("tcp", netip.AddrPortFrom(n.address, 0).String())
		}
		made <- err
	}()
	return listener, <-made
}
