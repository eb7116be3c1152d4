package deploy

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// programs holds the binaries, built with the very commands of the
// Containerfiles.
var programs = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "longhaul-deploy-test-")
	if err != nil {
		return "", err
	}
	programsDir = dir
	for _, file := range []string{"deploy/Containerfile.collector", "deploy/Containerfile.relay"} {
		content, err := os.ReadFile(filepath.Join(repository(), file))
		if err != nil {
			return "", err
		}
		commands, err := buildCommands(string(content))
		if err != nil {
			return "", fmt.Errorf("%s: %w", file, err)
		}
		for _, command := range commands {
			command = strings.ReplaceAll(command, "/out/", dir+"/")
			env := append(os.Environ(), "CGO_ENABLED=0", "VERSION=test", "TAGS="+argument(string(content), "TAGS"))
			if out, err := run(repository(), env, "sh", "-c", command); err != nil {
				return "", fmt.Errorf("%s: %s: %w\n%s", file, command, err, out)
			}
		}
	}
	return dir, os.Chmod(dir, 0o755) // for the user the collector runs as
})

var programsDir string // removed at the end

func TestMain(m *testing.M) {
	code := m.Run()
	if programsDir != "" {
		_ = os.RemoveAll(programsDir)
	}
	os.Exit(code)
}

func program(t *testing.T, name string) string {
	t.Helper()
	dir, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, name)
}

var goBuild = regexp.MustCompile(`go build (?:[^&\\]|\\\n)*`)

// buildCommands finds the go build commands of a Containerfile.
func buildCommands(containerfile string) ([]string, error) {
	var commands []string
	for _, c := range goBuild.FindAllString(containerfile, -1) {
		commands = append(commands, strings.TrimSpace(strings.ReplaceAll(c, "\\\n", " ")))
	}
	if len(commands) == 0 {
		return nil, fmt.Errorf("no go build in it")
	}
	return commands, nil
}

// argument is the default of an ARG of a Containerfile.
func argument(containerfile, name string) string {
	for line := range strings.Lines(containerfile) {
		if value, found := strings.CutPrefix(line, "ARG "+name+"="); found {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// fields are what a pod may ask of itself.
var fields = map[string]string{"spec.nodeName": "node-a.example.com", "status.hostIP": "fd00:10::21"}

var reference = regexp.MustCompile(`\$\([A-Z_]+\)`)

// environment is a container's, with what Kubernetes fills in.
func environment(t *testing.T, c corev1.Container) map[string]string {
	t.Helper()
	env := map[string]string{}
	for _, e := range c.Env {
		if _, twice := env[e.Name]; twice {
			t.Errorf("%s is set twice", e.Name)
		}
		env[e.Name] = e.Value
		if e.ValueFrom != nil {
			if e.ValueFrom.FieldRef == nil || fields[e.ValueFrom.FieldRef.FieldPath] == "" {
				t.Errorf("%s comes from somewhere this test does not know", e.Name)
				continue
			}
			env[e.Name] = fields[e.ValueFrom.FieldRef.FieldPath]
		}
		// $(NAME) is a variable given before.
		env[e.Name] = reference.ReplaceAllStringFunc(env[e.Name], func(name string) string {
			value, found := env[strings.Trim(name, "$()")]
			if !found {
				t.Errorf("%s refers to %s, which is not given before it", e.Name, name)
			}
			return value
		})
	}
	return env
}

// files lays out, below a directory, what the volumes of a pod hold, and returns
// the replacement of every mount path by its place there.
func files(t *testing.T, o *objects) *strings.Replacer {
	t.Helper()
	root := t.TempDir()
	var replace []string
	pod := o.pod()
	for _, m := range pod.Containers[0].VolumeMounts {
		place := filepath.Join(root, m.MountPath)
		replace = append(replace, m.MountPath, place)
		content := map[string]string{}
		for _, v := range pod.Volumes {
			switch {
			case v.Name != m.Name:
			case v.ConfigMap != nil:
				for _, item := range v.ConfigMap.Items {
					value, found := o.configMap.Data[item.Key]
					if !found {
						t.Errorf("volume %s: the ConfigMap has no %s", v.Name, item.Key)
					}
					content[item.Path] = value
				}
			case v.Secret != nil:
				content = secretFiles(t)
			case v.Projected != nil:
				content = projectedFiles(t, v.Projected)
			}
		}
		if m.SubPath != "" {
			write(t, place, content[m.SubPath])
			continue
		}
		if err := os.MkdirAll(place, 0o755); err != nil {
			t.Fatal(err)
		}
		for name, text := range content {
			write(t, filepath.Join(place, name), text)
		}
	}
	return strings.NewReplacer(replace...)
}

// projectedFiles are a token of the service account and the CA that Kubernetes
// puts into every namespace.
func projectedFiles(t *testing.T, projected *corev1.ProjectedVolumeSource) map[string]string {
	t.Helper()
	content := map[string]string{}
	for _, s := range projected.Sources {
		switch {
		case s.ServiceAccountToken != nil:
			content[s.ServiceAccountToken.Path] = "a token"
		case s.ConfigMap != nil && s.ConfigMap.Name == "kube-root-ca.crt" && s.ConfigMap.Items[0].Key == "ca.crt":
			content[s.ConfigMap.Items[0].Path] = secretFiles(t)["ca.crt"]
		default:
			t.Errorf("a source this test does not know: %+v", s)
		}
	}
	return content
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// The program itself reads what the chart gives it: the built-in configuration
// with the chart's environment, and configuration from values.
func TestProgramsAcceptTheCharts(t *testing.T) {
	forEachSet(t, func(t *testing.T, set valueSet) {
		o := mustParse(t, set)
		c := o.pod().Containers[0]
		places := files(t, o)
		args := []string{"validate"}
		for _, a := range c.Args {
			args = append(args, places.Replace(a))
		}
		env := []string{"PATH=" + os.Getenv("PATH")}
		for name, value := range environment(t, c) {
			env = append(env, name+"="+places.Replace(value))
		}
		if out, err := run(t.TempDir(), env, program(t, set.chart), args...); err != nil {
			t.Errorf("%s %v: %v\n%s", set.chart, args, err, out)
		}
	})
}

// Without this, the test above could pass because nothing is read.
func TestProgramsRefuseWhatTheChartsMustNotGive(t *testing.T) {
	for _, c := range []struct{ program, variable, want string }{
		{collectorChart, "LONGHAUL_CLUSTER=", "LONGHAUL_CLUSTER"},
		{collectorChart, "LONGHAUL_CLUSTER=store 1", "cluster"},
		{collectorChart, "LONGHAUL_SPOOL_MAX_BYTES=lots", "max_bytes"},
		{collectorChart, "LONGHAUL_NATS_URL=http://hub", "url"},
		{relayChart, "LONGHAUL_HUB_MAX_BYTES=lots", "max_bytes"},
		{relayChart, "LONGHAUL_LOKI_URL=loki", "endpoint"},
	} {
		env := []string{"LONGHAUL_CLUSTER=store-0001", "LONGHAUL_NODE=a", c.variable}
		out, err := run(t.TempDir(), env, program(t, c.program), "validate")
		if err == nil || !strings.Contains(out, c.want) {
			t.Errorf("%s with %s: %v, want an error with %q\n%s", c.program, c.variable, err, c.want, out)
		}
	}
}

// Every variable a chart sets is one its program reads.
func TestChartsSetOnlyVariablesThatAreRead(t *testing.T) {
	read := map[string]string{
		collectorChart: source(t, "collector"),
		relayChart:     source(t, "relay"),
	}
	forEachSet(t, func(t *testing.T, set valueSet) {
		for name := range environment(t, mustParse(t, set).pod().Containers[0]) {
			if strings.HasPrefix(name, "LONGHAUL_") && !regexp.MustCompile(`\b`+name+`\b`).MatchString(read[set.chart]) {
				t.Errorf("%s: nothing in the program reads it", name)
			}
		}
	})
}

// source is the program and the configuration of one distribution.
func source(t *testing.T, dir string) string {
	t.Helper()
	var all strings.Builder
	for _, pattern := range []string{"*.go", "*.yaml", "config/*.yaml"} {
		names, err := filepath.Glob(filepath.Join(repository(), dir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			content, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			all.Write(content)
		}
	}
	return all.String()
}

// What the chart says of the user it runs as is true of the kernel: with root's
// group, user 10001 reads 0640 logs of root and nothing that is closed to the
// group; and it can write where spool-owner was.
func TestTheChartsUserReadsLogsAndOwnsItsSpool(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("taking another user's place needs root")
	}
	pod := mustParse(t, valueSets[0]).pod()
	uid, gid, groups := user(pod, pod.Containers[0])
	credential := &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	for _, g := range groups {
		credential.Groups = append(credential.Groups, uint32(g))
	}
	as := func(command string) error {
		cmd := exec.Command("sh", "-c", command)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: credential}
		return cmd.Run()
	}

	dir, err := os.MkdirTemp("", "longhaul-chart-user-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	spool, logs, closed := filepath.Join(dir, "spool"), filepath.Join(dir, "0.log"), filepath.Join(dir, "1.log")
	write(t, logs, "a line\n")
	write(t, closed, "a line\n")
	for path, mode := range map[string]os.FileMode{dir: 0o755, logs: 0o640, closed: 0o600} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(spool, 0o755); err != nil { // as the kubelet does
		t.Fatal(err)
	}
	if as("touch "+spool+"/x") == nil {
		t.Error("the spool could be written to before spool-owner ran")
	}
	args := pod.InitContainers[0].Args
	if out, err := run(dir, nil, program(t, "longhaul-spool-owner"), spool, args[1]); err != nil {
		t.Fatalf("longhaul-spool-owner: %v\n%s", err, out)
	}
	if err := as("touch " + spool + "/x"); err != nil {
		t.Errorf("the spool cannot be written to: %v", err)
	}
	if err := as("cat " + logs); err != nil {
		t.Errorf("a log of mode 0640 cannot be read: %v", err)
	}
	if as("cat "+closed) == nil {
		t.Error("a log of mode 0600 could be read: the notes say it cannot")
	}
}
