package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestResultLine(t *testing.T) {
	ours := &figures{lines: 1_000_000, durable: 2 * time.Second, delivered: 4 * time.Second, cpu: 3 * time.Second, peak: 100 << 20, idle: 50 << 20, disk: 30_000_000, wire: 30_000_000}
	peer := &figures{lines: 1_000_000, durable: 20 * time.Second, delivered: 20 * time.Second, cpu: 30 * time.Second, peak: 200 << 20, disk: 60_000_000, wire: 60_000_000}
	both := results{burst: pair{ours, peer}}
	require.Equal(t, "RESULT bench-logs cpu_ratio=0.100 lines_per_s=500000 rss_ratio=0.500 cpu_s_per_million=3.00 peer_cpu_s_per_million=30.00"+
		" peer_lines_per_s=50000 peak_rss_mib=100 idle_rss_mib=50 disk_ratio=0.500 wire_ratio=0.500 wire_bytes_per_line=30.0", both.line())
	alone := results{burst: pair{ours: ours}}
	require.NotContains(t, alone.line(), "ratio")
	require.Contains(t, alone.line(), "lines_per_s=500000")
}
