//go:build race

package natsreceiver

func init() { raceDetector = true }
