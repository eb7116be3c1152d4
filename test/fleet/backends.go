package main

import (
	"context"
	"errors"
	"path/filepath"

	"github.com/longhaul/longhaul/internal/lab"
)

// backends are the real ones, behind the sinks.
type backends struct {
	loki       *lab.Loki
	prometheus *lab.Prometheus
	jaeger     *lab.Jaeger
}

func (b *backends) start(ctx context.Context, dir string) error {
	build := lab.Builder{Progress: func(e lab.Event) { say("%v", e) }}
	binaries := make(map[string]string)
	for _, name := range []string{"loki", "prometheus", "jaeger"} {
		binary, err := build.Binary(ctx, name)
		if err != nil {
			return err
		}
		binaries[name] = binary
	}
	var err error
	if b.loki, err = lab.NewLoki(lab.LokiOptions{Binary: binaries["loki"], Dir: filepath.Join(dir, "loki")}); err != nil {
		return err
	}
	if b.prometheus, err = lab.NewPrometheus(lab.PrometheusOptions{Binary: binaries["prometheus"], Dir: filepath.Join(dir, "prometheus")}); err != nil {
		return err
	}
	if b.jaeger, err = lab.NewJaeger(lab.JaegerOptions{Binary: binaries["jaeger"], Dir: filepath.Join(dir, "jaeger")}); err != nil {
		return err
	}
	return errors.Join(b.loki.Start(ctx), b.prometheus.Start(ctx), b.jaeger.Start(ctx))
}

func (b *backends) stop() error {
	var problems []error
	if b.loki != nil {
		problems = append(problems, b.loki.Stop())
	}
	if b.prometheus != nil {
		problems = append(problems, b.prometheus.Stop())
	}
	if b.jaeger != nil {
		problems = append(problems, b.jaeger.Stop())
	}
	return errors.Join(problems...)
}

func (b *backends) name() string {
	if b.loki == nil {
		return "sinks"
	}
	return "Loki, Prometheus and Jaeger"
}
