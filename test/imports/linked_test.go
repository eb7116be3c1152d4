package imports

import (
	"debug/elf"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// maxCloudSDKBytes is what the linker cannot drop of packages that Prometheus's
// configuration types and the collector's own telemetry name: about 150 KiB.
const maxCloudSDKBytes = 256 << 10

var cloudSDKs = []string{
	"github.com/aws/", "github.com/Azure/", "github.com/AzureAD/",
	"cloud.google.com/", "google.golang.org/api/", "github.com/GoogleCloudPlatform/",
}

// TestNoCloudSDKIsLinkedIntoTheCollector measures the linked program, because
// that is what is installed on every node.
func TestNoCloudSDKIsLinkedIntoTheCollector(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("reads an ELF file")
	}
	program := filepath.Join(t.TempDir(), "longhaul-collector")
	if out, err := exec.Command("go", "build", "-o", program, module+"collector").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	file, err := elf.Open(program)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	symbols, err := file.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	var sdk uint64
	ours := false
	for _, symbol := range symbols {
		ours = ours || strings.HasPrefix(symbol.Name, module+"exporters/natsexporter")
		if strings.HasPrefix(symbol.Name, "k8s.io/client-go/kubernetes") {
			t.Fatalf("client-go's typed clients are linked: %s", symbol.Name)
		}
		for _, prefix := range cloudSDKs {
			if strings.HasPrefix(symbol.Name, prefix) {
				sdk += symbol.Size
			}
		}
	}
	if !ours {
		t.Fatal("the program's symbols are not readable: nothing was measured")
	}
	t.Logf("%d KiB of cloud SDKs are linked", sdk>>10)
	if sdk > maxCloudSDKBytes {
		t.Errorf("%d KiB of cloud SDKs are linked; at most %d KiB may be", sdk>>10, maxCloudSDKBytes>>10)
	}
}
