package prometheusexporter

import (
	"errors"
	"fmt"
	"net/http"

	"go.opentelemetry.io/collector/consumer/consumererror"
	"go.opentelemetry.io/collector/pdata/pmetric"
)

// maxTenantsAtOnce bounds how many tenants of one call are sent to at a time.
const maxTenantsAtOnce = 32

// part is what a call brings for one tenant, and what became of it.
type part struct {
	tenant    string
	resources []pmetric.ResourceMetrics
	done      outcome
	err       error
}

// byTenant groups resources, in the order in which the tenants appear.
func (e *prometheusExporter) byTenant(md pmetric.Metrics) []part {
	var parts []part
	known := make(map[string]int)
	for _, resource := range md.ResourceMetrics().All() {
		tenant := e.cfg.Tenant.Of(resource.Resource().Attributes())
		i, found := known[tenant]
		if !found {
			i = len(parts)
			known[tenant] = i
			parts = append(parts, part{tenant: tenant})
		}
		parts[i].resources = append(parts[i].resources, resource)
	}
	return parts
}

// headers of requests for a tenant.
func (e *prometheusExporter) headers(tenant string) (header1, header2 http.Header) {
	if tenant == "" {
		return e.header1, e.header2
	}
	header1, header2 = e.header1.Clone(), e.header2.Clone()
	header1.Set(e.cfg.Tenant.Header, tenant)
	header2.Set(e.cfg.Tenant.Header, tenant)
	return header1, header2
}

// result makes one of what became of the parts of a call: an error that carries
// the metrics still to be sent, where that is not all of them.
func result(parts []part) error {
	var (
		total  outcome
		failed []*part
		errs   []error
	)
	for i := range parts {
		p := &parts[i]
		if p.err == nil {
			total.add(p.done)
			continue
		}
		failed = append(failed, p)
		if p.tenant != "" && len(parts) > 1 {
			errs = append(errs, fmt.Errorf("tenant %s: %w", p.tenant, p.err))
		} else {
			errs = append(errs, p.err)
		}
	}
	if len(failed) == 0 {
		if total.sent == 0 && total.refused.samples() > 0 {
			return consumererror.NewPermanent(fmt.Errorf("all %d samples were refused: %s", total.refused.samples(), total.refused.example()))
		}
		return nil
	}
	const told = 3
	if more := len(errs) - told; more > 0 {
		errs = append(errs[:told], fmt.Errorf("and %d more tenants", more))
	}
	err := errors.Join(errs...)
	if len(failed) == len(parts) {
		return err
	}
	rest := pmetric.NewMetrics()
	for _, p := range failed {
		for _, resource := range p.resources {
			resource.CopyTo(rest.ResourceMetrics().AppendEmpty())
		}
	}
	return consumererror.NewMetrics(err, rest)
}
