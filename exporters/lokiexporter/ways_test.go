package lokiexporter

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/consumer/consumererror"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"

	"github.com/longhaul/longhaul/internal/direct"
)

// The exporter has two entrances. What is promised of one is promised of the other.

// way is an entrance.
type way string

const (
	asPdata    way = "pdata"
	asRequests way = "requests" // one for each resource
)

var ways = []way{asPdata, asRequests}

// eachWay runs a test through both entrances. The test's exporters are started by
// what it is given.
func eachWay(t *testing.T, test func(t *testing.T, start func(*testing.T, string, func(*Config)) running)) {
	for _, w := range ways {
		t.Run(string(w), func(t *testing.T) {
			test(t, func(t *testing.T, endpoint string, change func(*Config)) running {
				exp := start(t, endpoint, change)
				exp.way = w
				return exp
			})
		})
	}
}

// ConsumeLogs consumes logs by the way of a test. What a partial error gives back is
// in the terms of logs.
func (r running) ConsumeLogs(ctx context.Context, logs plog.Logs) error {
	if r.way != asRequests {
		return r.Logs.ConsumeLogs(ctx, logs)
	}
	err := r.Logs.(direct.Consumer).ConsumeOTLP(ctx, pieces(logs))
	var partial *direct.PartialError
	if !errors.As(err, &partial) {
		return err
	}
	failed := plog.NewLogs()
	for _, i := range partial.Failed {
		logs.ResourceLogs().At(i).CopyTo(failed.ResourceLogs().AppendEmpty())
	}
	return consumererror.NewLogs(partial.Err, failed)
}

// pieces makes a request of each resource, as one that says nothing true about where
// it comes from. An origin without names leaves them out.
func pieces(logs plog.Logs) (all []direct.Piece) {
	for _, resource := range logs.ResourceLogs().All() {
		one := plog.NewLogs()
		resource.CopyTo(one.ResourceLogs().AppendEmpty())
		attributes := one.ResourceLogs().At(0).Resource().Attributes()
		all = append(all, direct.Piece{
			Cluster: attributeText(attributes, direct.ClusterAttribute), Node: attributeText(attributes, direct.NodeAttribute),
			Backlog: attributeText(attributes, direct.LaneAttribute) == "backlog",
		})
		for _, name := range []string{direct.ClusterAttribute, direct.NodeAttribute, direct.LaneAttribute} {
			if _, found := attributes.Get(name); found {
				attributes.PutStr(name, "not true")
			}
		}
		all[len(all)-1].OTLP = marshal(one)
	}
	return all
}

func marshal(logs plog.Logs) []byte {
	request, err := (&plog.ProtoMarshaler{}).MarshalLogs(logs)
	if err != nil {
		panic(err)
	}
	return request
}

func attributeText(attributes pcommon.Map, name string) string {
	value, found := attributes.Get(name)
	if !found {
		return ""
	}
	return strings.Clone(value.AsString())
}

// inputs are logs as a way brings them to the translator.
func (w way) inputs(logs plog.Logs) (all []input) {
	if w != asRequests {
		return []input{{otlp: marshal(logs)}}
	}
	list := pieces(logs)
	for i := range list {
		all = append(all, input{list[i].OTLP, &list[i]})
	}
	return all
}

// translateAll translates for one tenant.
func (w way) translateAll(t require.TestingT, translator *translator, logs plog.Logs) *batch {
	b := newBatch()
	_, err := translator.translate(w.inputs(logs), func(string) *share { return &share{tenant: &tenantState{}, batch: b, late: noneLate} })
	require.NoError(t, err)
	return b
}

// noneLate is the policy under which no entry is late.
var noneLate = latePolicy{before: math.MinInt64}
