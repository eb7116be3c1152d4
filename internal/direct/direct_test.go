package direct

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/plog"

	"github.com/longhaul/longhaul/internal/otlpwire"
)

// resource is a Resource message with string attributes, in their order.
func resource(t *testing.T, attributes ...string) []byte {
	t.Helper()
	logs := plog.NewLogs()
	m := logs.ResourceLogs().AppendEmpty().Resource().Attributes()
	for i := 0; i < len(attributes); i += 2 {
		m.PutStr(attributes[i], attributes[i+1])
	}
	message, err := (&plog.ProtoMarshaler{}).MarshalLogs(logs)
	require.NoError(t, err)
	for range 2 { // resource logs, resource
		r := otlpwire.Read(message)
		require.True(t, r.Next())
		message = r.Bytes()
	}
	return message
}

func texts(all []otlpwire.Attribute) (texts []string) {
	for _, a := range all {
		texts = append(texts, a.Key, a.Value.Text())
	}
	return texts
}

func TestAnOriginStandsAboveTheResource(t *testing.T) {
	said := resource(t, "k8s.node.name", "spoofed", "a", "b", "longhaul.lane", "backlog", "k8s.cluster.name", "spoofed")
	for _, c := range []struct {
		piece *Piece
		want  []string
	}{
		{&Piece{Cluster: "c", Node: "n"}, []string{"a", "b", "k8s.cluster.name", "c", "k8s.node.name", "n"}},
		{&Piece{Cluster: "c", Node: "n", Backlog: true}, []string{"a", "b", "k8s.cluster.name", "c", "k8s.node.name", "n", "longhaul.lane", "backlog"}},
		{nil, []string{"k8s.node.name", "spoofed", "a", "b", "longhaul.lane", "backlog", "k8s.cluster.name", "spoofed"}},
	} {
		all, err := c.piece.Attributes(nil, said)
		require.NoError(t, err)
		require.Equal(t, c.want, texts(all))
	}
}

func TestAMalformedResourceIsAnError(t *testing.T) {
	for name, message := range map[string][]byte{
		"cut short": {0x0a}, "an attribute that is a number": {0x08, 1}, "an attribute cut short": {0x0a, 1, 0x0a},
		"a dropped count that is a text": {0x12, 0}, "an entity's type that is a number": {0x1a, 2, 0x10, 1},
	} {
		for _, piece := range []*Piece{nil, {Cluster: "c"}} {
			_, err := piece.Attributes(nil, message)
			require.ErrorIs(t, err, otlpwire.ErrMalformed, name)
		}
	}
}
