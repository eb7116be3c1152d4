package prometheusexporter

import (
	"errors"
	"fmt"
	"hash/maphash"
	"net/http"
	"slices"
	"strconv"

	"go.opentelemetry.io/collector/consumer/consumererror"

	"github.com/longhaul/longhaul/exporters/internal/deliver"
	"github.com/longhaul/longhaul/internal/otlpwire"
)

// maxTenantsAtOnce bounds how many tenants of one call are sent to at a time.
const maxTenantsAtOnce = 32

// part is what a call brings for one tenant, and what became of it.
type part struct {
	tenant    string
	resources []resource
	earlier   []deliver.Part // what of it an earlier call answered for; see remember
	done      outcome
	err       error
}

// byTenant groups resources, in the order in which the tenants appear.
func (e *prometheusExporter) byTenant(sources []source) ([]part, error) {
	var (
		parts []part
		known = make(map[string]int)
		// A tenant that another call was done with, as remember tells.
		repeated = !e.progress.Empty()
		answered = make(map[sourceTenant]bool)
	)
	for n := range sources {
		s := &sources[n]
		err := s.readResources(func(index int, attributes []otlpwire.Attribute, message []byte) {
			tenant := e.cfg.Tenant.Of(attributes)
			i, found := known[tenant]
			if !found {
				i = len(parts)
				known[tenant] = i
				parts = append(parts, part{tenant: tenant})
			}
			p := &parts[i]
			if repeated && s.origin != nil {
				key := sourceTenant{n, tenant}
				done, looked := answered[key]
				if !looked {
					var earlier deliver.Part
					if earlier, done = e.progress.Answered(s.hash(tenant)); done {
						p.earlier = append(p.earlier, earlier)
					}
					answered[key] = done
				}
				if done {
					return
				}
			}
			p.resources = append(p.resources, resource{n, index, attributes, message})
		})
		if err != nil {
			return nil, &sourceError{n, err}
		}
	}
	return parts, nil
}

type sourceTenant struct {
	source int
	tenant string
}

// check reads all that the parts have.
func check(parts []part) error {
	var memory []byte
	for i := range parts {
		for j := range parts[i].resources {
			of := &parts[i].resources[j]
			if err := of.check(&memory); err != nil {
				return &sourceError{of.source, err}
			}
		}
	}
	return nil
}

// hash knows what a request has for a tenant, for the life of the process.
func (s *source) hash(tenant string) uint64 {
	var h maphash.Hash
	h.SetSeed(batchSeed)
	for _, text := range [...]string{"piece", tenant, s.origin.Cluster, s.origin.Node, strconv.FormatBool(s.origin.Backlog)} {
		_, _ = h.WriteString(text)
		_ = h.WriteByte(0)
	}
	_, _ = h.Write(s.otlp)
	return h.Sum64()
}

// remember returns the requests that are not wholly delivered, and keeps in mind the
// tenants that are done with theirs: those requests will come again.
func (e *prometheusExporter) remember(sources []source, parts []part) (failed []int) {
	for i := range parts {
		if parts[i].err == nil {
			continue
		}
		for j := range parts[i].resources {
			failed = append(failed, parts[i].resources[j].source)
		}
	}
	slices.Sort(failed)
	failed = slices.Compact(failed)
	var done []deliver.Part
	for i := range parts {
		p := &parts[i]
		if p.err != nil {
			continue
		}
		last := -1
		for j := range p.resources {
			n := p.resources[j].source
			if _, again := slices.BinarySearch(failed, n); again && n != last {
				done = append(done, deliver.Part{
					Hash: sources[n].hash(p.tenant), Sent: min(p.done.sent, 1), Rejected: min(p.done.refused.samples(), 1),
				})
			}
			last = n
		}
	}
	e.progress.Keep(done)
	return failed
}

// forget is for parts that all came to their end.
func (e *prometheusExporter) forget(parts []part) {
	for i := range parts {
		if len(parts[i].earlier) > 0 {
			e.progress.Forget(parts[i].earlier)
		}
	}
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

// result makes one error of what became of the parts of a call, and tells which are
// to be delivered again.
func result(parts []part) (failed []*part, err error) {
	var (
		total   outcome
		earlier bool // something was taken by an earlier call
		errs    []error
	)
	for i := range parts {
		p := &parts[i]
		if p.err == nil {
			total.add(p.done)
			for _, known := range p.earlier {
				earlier = earlier || known.Sent > 0
			}
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
		if total.sent == 0 && !earlier && total.refused.samples() > 0 {
			return nil, consumererror.NewPermanent(fmt.Errorf("all %d samples were refused: %s", total.refused.samples(), total.refused.example()))
		}
		return nil, nil
	}
	const told = 3
	if more := len(errs) - told; more > 0 {
		errs = append(errs[:told], fmt.Errorf("and %d more tenants", more))
	}
	return failed, errors.Join(errs...)
}
