//go:build race

package lokiexporter

func init() { raceDetector = true }
