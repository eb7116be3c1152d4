package lab

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestCPUTimeOfACommandWithParentheses(t *testing.T) {
	cpu, err := cpuTime([]byte("42 (a) b (c)) S 1 42 42 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 9 0 1000 0 0"))
	require.NoError(t, err)
	require.Equal(t, 3*time.Second, cpu)
	_, err = cpuTime([]byte("42 (a"))
	require.Error(t, err)
}

func TestFieldOfStatus(t *testing.T) {
	if _, err := field([]byte("VmHWM:\t  12 kB\n"), "VmRSS:"); err == nil {
		t.Fatal("a field that is not there was found")
	}
	n, err := field([]byte("Name:\tx\nVmRSS:\t  12 kB\n"), "VmRSS:")
	require.NoError(t, err)
	require.EqualValues(t, 12, n)
}
