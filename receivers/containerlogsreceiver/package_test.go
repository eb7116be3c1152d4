package containerlogsreceiver

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if pods := os.Getenv(killedReceiver); pods != "" {
		runUntilKilled(pods)
	}
	goleak.VerifyTestMain(m)
}
