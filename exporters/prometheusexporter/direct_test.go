package prometheusexporter

import (
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/longhaul/longhaul/internal/direct"
)

// pieceOf makes a request of one resource, whose origin is only beside it.
func pieceOf(t fataler, of pmetric.ResourceMetrics) direct.Piece {
	md := pmetric.NewMetrics()
	of.CopyTo(md.ResourceMetrics().AppendEmpty())
	attributes := md.ResourceMetrics().At(0).Resource().Attributes()
	take := func(key string) string {
		value, found := attributes.Get(key)
		if !found {
			return ""
		}
		text := value.AsString()
		attributes.RemoveIf(func(k string, _ pcommon.Value) bool { return k == key })
		return text
	}
	piece := direct.Piece{
		Cluster: take(direct.ClusterAttribute), Node: take(direct.NodeAttribute), Backlog: take(direct.LaneAttribute) != "",
	}
	var err error
	piece.OTLP, err = (&pmetric.ProtoMarshaler{}).MarshalMetrics(md)
	require.NoError(t, err)
	return piece
}

// piecesOf makes a request of each resource.
func piecesOf(t fataler, md pmetric.Metrics) []direct.Piece {
	var pieces []direct.Piece
	for _, of := range md.ResourceMetrics().All() {
		pieces = append(pieces, pieceOf(t, of))
	}
	return pieces
}
