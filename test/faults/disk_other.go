//go:build !linux

package main

func smallDisk() string { return "a small file system is mounted on Linux only" }

func mountSmallDisk(string, string) error { return errSkip }

func unmountSmallDisk(string) {}

func isDiskFull(error) bool { return false }
