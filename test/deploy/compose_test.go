package deploy

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
)

// compose reads the compose file as `docker compose` does.
func compose(t *testing.T, env ...string) *types.Project {
	t.Helper()
	options, err := cli.NewProjectOptions([]string{filepath.Join(repository(), "deploy/compose/compose.yaml")}, cli.WithEnv(env))
	if err != nil {
		t.Fatal(err)
	}
	project, err := options.LoadProject(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return project
}

func TestComposeHasEveryPart(t *testing.T) {
	var names []string
	for name := range compose(t).Services {
		names = append(names, name)
	}
	slices.Sort(names)
	want := []string{"collector", "grafana", "jaeger", "loki", "nats", "prometheus", "relay"}
	if !slices.Equal(names, want) {
		t.Errorf("services %v, want %v", names, want)
	}
}

// The file publishes servers that ask for no password.
func TestComposePublishesOnLoopbackOnly(t *testing.T) {
	for name, service := range compose(t).Services {
		for _, port := range service.Ports {
			if port.HostIP != "127.0.0.1" {
				t.Errorf("%s publishes port %s on %q", name, port.Published, port.HostIP)
			}
		}
	}
}

func TestProgramsAcceptTheComposeFile(t *testing.T) {
	project := compose(t)
	for service, binary := range map[string]string{"collector": collectorChart, "relay": relayChart} {
		s := project.Services[service]
		var env []string
		for name, value := range s.Environment {
			if value == nil {
				t.Fatalf("%s: %s has no value", service, name)
			}
			env = append(env, name+"="+*value)
		}
		if out, err := run(t.TempDir(), env, program(t, binary), append([]string{"validate"}, s.Command...)...); err != nil {
			t.Errorf("%s: %v\n%s", service, err, out)
		}
	}
	if c := *compose(t, "LONGHAUL_CLUSTER=store-0421").Services["collector"].Environment["LONGHAUL_CLUSTER"]; c != "store-0421" {
		t.Errorf("LONGHAUL_CLUSTER of the shell is not used: %q", c)
	}
}

// A URL in the file names a service of the file, and a port that service
// listens on.
func TestComposeServicesFindEachOther(t *testing.T) {
	project := compose(t)
	listens := map[string][]string{
		"nats":       {"4222"},
		"loki":       {"3100"},
		"prometheus": {"9090"},
		"jaeger":     {"4317", "16686"},
	}
	address := regexp.MustCompile(`^(?:[a-z]+://)?([a-z]+):([0-9]+)$`)
	seen := map[string]bool{}
	for name, service := range project.Services {
		for variable, value := range service.Environment {
			m := address.FindStringSubmatch(*value)
			if m == nil {
				continue
			}
			seen[m[1]] = true
			if _, found := project.Services[m[1]]; !found || !slices.Contains(listens[m[1]], m[2]) {
				t.Errorf("%s: %s=%s points nowhere", name, variable, *value)
			}
		}
	}
	for name := range listens {
		if !seen[name] {
			t.Errorf("nothing uses %s", name)
		}
	}
}

func TestComposeRestrictsOurOwnContainers(t *testing.T) {
	for _, name := range []string{"collector", "relay"} {
		s := compose(t).Services[name]
		if !s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"}) || !slices.Contains(s.SecurityOpt, "no-new-privileges:true") || s.Privileged || s.User != "" {
			t.Errorf("%s has more rights than it needs: %+v", name, s)
		}
	}
}

func TestComposeFilesExist(t *testing.T) {
	project := compose(t)
	for name, config := range project.Configs {
		if _, err := os.Stat(config.File); err != nil {
			t.Errorf("config %s: %v", name, err)
		}
	}
	for name, service := range project.Services {
		if b := service.Build; b != nil {
			if _, err := os.Stat(filepath.Join(b.Context, b.Dockerfile)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		for _, v := range service.Volumes {
			if v.Type == types.VolumeTypeBind && strings.HasPrefix(v.Source, repository()) {
				if _, err := os.Stat(v.Source); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		}
	}
}

// The images are of the versions the end-to-end tests run.
func TestComposeRunsTheVersionsThatAreTested(t *testing.T) {
	module := func(file, name string) string {
		m := regexp.MustCompile(`(?m)^\s*(?:require )?` + regexp.QuoteMeta(name) + ` v(\S+)`).FindStringSubmatch(repositoryFile(t, file))
		if m == nil {
			t.Fatalf("%s does not require %s", file, name)
		}
		return m[1]
	}
	// Prometheus v3.16.0 is v0.316.0 as a module.
	prometheus := module("test/backends/prometheus/go.mod", "github.com/prometheus/prometheus")
	var major, minor, patch int
	if _, err := fmt.Sscanf(prometheus, "0.%1d%d.%d", &major, &minor, &patch); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"nats":       "nats:" + module("go.mod", "github.com/nats-io/nats-server/v2"),
		"loki":       "loki:" + module("test/backends/loki/go.mod", "github.com/grafana/loki/v3"),
		"prometheus": fmt.Sprintf("prometheus:v%d.%d.%d", major, minor, patch),
	}
	// Jaeger 2.13.0 was released as v1.76.0 of the module.
	if v := module("test/backends/jaeger/go.mod", "github.com/jaegertracing/jaeger"); v == "1.76.0" {
		want["jaeger"] = "jaeger:2.13.0"
	} else {
		t.Errorf("which image is Jaeger's module v%s? Tell this test", v)
	}
	project := compose(t)
	for service, image := range want {
		if got := project.Services[service].Image; !strings.HasSuffix(got, "/"+image) {
			t.Errorf("%s runs %s, the tests %s", service, got, image)
		}
	}
}

// The Containerfiles build with the flags of the Makefile, run as the user the
// charts run them as, and put programs where charts and compose look for them.
func TestContainerfiles(t *testing.T) {
	tags := regexp.MustCompile(`(?m)^TAGS := (\S+)$`).FindStringSubmatch(repositoryFile(t, "Makefile"))
	if tags == nil {
		t.Fatal("the Makefile has no TAGS")
	}
	pod := mustParse(t, valueSets[0]).pod()
	uid, gid, _ := user(pod, pod.Containers[0])
	for file, want := range map[string][]string{
		"deploy/Containerfile.collector": {`ENTRYPOINT ["/longhaul-collector"]`, pod.InitContainers[0].Command[0]},
		"deploy/Containerfile.relay":     {`ENTRYPOINT ["/longhaul-relay"]`},
	} {
		content := repositoryFile(t, file)
		if got := argument(content, "TAGS"); got != tags[1] {
			t.Errorf("%s builds with the tags %s, the Makefile with %s", file, got, tags[1])
		}
		owner := fmt.Sprintf("%d:%d", uid, gid)
		for _, line := range append(want, "FROM scratch", "USER "+owner, "COPY --from=build --chown="+owner+" ", "COPY --from=build /etc/ssl/certs/") {
			if !strings.Contains(content, line) {
				t.Errorf("%s has no %s", file, line)
			}
		}
		for _, source := range regexp.MustCompile(`(?m)^COPY ([^-\n]+) \S+$`).FindAllStringSubmatch(content, -1) {
			for _, path := range strings.Fields(source[1]) {
				if _, err := os.Stat(filepath.Join(repository(), path)); err != nil {
					t.Errorf("%s copies what is not there: %v", file, err)
				}
			}
		}
		m := regexp.MustCompile(`golang:([0-9]+\.[0-9]+)`).FindStringSubmatch(content)
		if m == nil || !strings.Contains(repositoryFile(t, "go.mod"), "\ngo "+m[1]) {
			t.Errorf("%s builds with another Go than go.mod asks for: %v", file, m)
		}
	}
}
