//go:build !linux

package main

import (
	"errors"
	"net"
)

var netemShape []string

type netns struct{}

func newNetns([]string) (*netns, error) { return nil, errors.New("network namespaces are Linux's") }

func (*netns) clear() {}

func (*netns) close() {}

func (*netns) listen() (net.Listener, error) {
	return nil, errors.New("network namespaces are Linux's")
}
