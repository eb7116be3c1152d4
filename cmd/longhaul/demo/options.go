package demo

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/spf13/pflag"
)

// Default UI ports: those the servers are known by.
const (
	lokiPort       = 3100
	prometheusPort = 9090
	jaegerPort     = 16686
)

// minSeconds is the shortest scripted run: two collections of metrics before,
// during and after the outage.
const minSeconds = 15

// options are the flags of the command. Each has an environment variable for
// its default, so that `DEMO_SECONDS=120 make demo` works.
type options struct {
	Seconds        int // of the scripted run; 0: until the user quits
	Rate           float64
	Dir            string
	Keep           bool
	Bin            string
	LokiPort       int
	PrometheusPort int
	JaegerPort     int

	envProblems []error
}

// flags declares the options with their defaults from the environment.
func (o *options) flags(f *pflag.FlagSet) {
	f.IntVar(&o.Seconds, "seconds", o.envInt("DEMO_SECONDS", 0), "run the script for this many seconds, count every item at the end and exit (DEMO_SECONDS); 0: run until you quit")
	f.Float64Var(&o.Rate, "rate", 5, "orders per second in each store")
	f.StringVar(&o.Dir, "dir", os.Getenv("DEMO_DIR"), "run directory, must be new or empty (DEMO_DIR; default: a new temporary one)")
	f.BoolVar(&o.Keep, "keep", false, "keep the run directory (it is kept anyway when something failed or --dir is given)")
	f.StringVar(&o.Bin, "bin", "", "directory of longhaul-collector and longhaul-relay (default: where this program is)")
	f.IntVar(&o.LokiPort, "loki-port", o.envInt("DEMO_LOKI_PORT", lokiPort), "port of Loki (DEMO_LOKI_PORT); 0: any free one")
	f.IntVar(&o.PrometheusPort, "prometheus-port", o.envInt("DEMO_PROMETHEUS_PORT", prometheusPort), "port of Prometheus (DEMO_PROMETHEUS_PORT); 0: any free one")
	f.IntVar(&o.JaegerPort, "jaeger-port", o.envInt("DEMO_JAEGER_PORT", jaegerPort), "port of Jaeger's UI (DEMO_JAEGER_PORT); 0: any free one")
}

func (o *options) envInt(name string, otherwise int) int {
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		o.envProblems = append(o.envProblems, fmt.Errorf("%s=%q: must be a whole number", name, text))
		return otherwise
	}
	return n
}

// validate reports every problem.
func (o *options) validate() error {
	errs := append([]error(nil), o.envProblems...)
	if o.Seconds != 0 && o.Seconds < minSeconds {
		errs = append(errs, fmt.Errorf("--seconds (DEMO_SECONDS): must be 0 or at least %d, is %d", minSeconds, o.Seconds))
	}
	if o.Rate <= 0 || o.Rate > 200 {
		errs = append(errs, fmt.Errorf("--rate: must be above 0 and at most 200, is %v", o.Rate))
	}
	taken := map[int]string{}
	for _, p := range o.ports() {
		if p.port < 0 || p.port > 65535 {
			errs = append(errs, fmt.Errorf("%s (%s): must be a port, 0 to 65535, is %d", p.flag, p.env, p.port))
		}
		if other := taken[p.port]; other != "" && p.port != 0 {
			errs = append(errs, fmt.Errorf("%s (%s): is %d, and so is %s; each needs a port of its own", p.flag, p.env, p.port, other))
		}
		taken[p.port] = p.flag
	}
	return errors.Join(errs...)
}

// wantedPort is a port a user may know and may have to change.
type wantedPort struct {
	name, flag, env string
	port            int
}

func (o *options) ports() []wantedPort {
	return []wantedPort{
		{"Loki", "--loki-port", "DEMO_LOKI_PORT", o.LokiPort},
		{"Prometheus", "--prometheus-port", "DEMO_PROMETHEUS_PORT", o.PrometheusPort},
		{"Jaeger", "--jaeger-port", "DEMO_JAEGER_PORT", o.JaegerPort},
	}
}

// outage is when, after the start of the clock, the link is cut and for how long.
func (o *options) outage() (at, length time.Duration) {
	whole := time.Duration(o.Seconds) * time.Second
	length = min(30*time.Second, whole/3)
	return (whole - length) / 2, length
}
