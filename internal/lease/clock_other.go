//go:build !linux

package lease

import "time"

var start = time.Now()

func sinceBoot() time.Duration { return time.Since(start) }
