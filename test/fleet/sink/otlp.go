package sink

import (
	"bytes"

	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/test/fleet/frames"
)

const clusterAttribute = "k8s.cluster.name"

// takeOTLPLogs reads an OTLP export request of logs.
func takeOTLPLogs(message []byte) (b Batch, err error) {
	b.Signal = frame.Logs
	err = takeResources(message, func(record []byte, cluster string) error {
		b.Items++
		var body []byte
		err := only(record, 5, func(value []byte) error {
			return only(value, 1, func(text []byte) error {
				body = text
				return nil
			})
		})
		if err == nil && bytes.HasPrefix(body, []byte(frames.MarkerLine)) {
			var m frames.Marker
			if m, err = frames.ParseLine(body); err == nil {
				b.Sightings = append(b.Sightings, Sighting{m, cluster})
			}
		}
		return err
	})
	return b, err
}

// takeOTLPTraces reads an OTLP export request of spans.
func takeOTLPTraces(message []byte) (b Batch, err error) {
	b.Signal = frame.Traces
	err = takeResources(message, func(span []byte, cluster string) error {
		b.Items++
		var trace, id, name []byte
		var start uint64
		err := walk(span, func(f field) error {
			switch f.number {
			case 1:
				trace = f.bytes
			case 2:
				id = f.bytes
			case 5:
				name = f.bytes
			case 7:
				start = f.value
			}
			return nil
		})
		if err == nil && string(name) == frames.MarkerSpan {
			var m frames.Marker
			if m, err = frames.ParseSpan(trace, id, start); err == nil {
				b.Sightings = append(b.Sightings, Sighting{m, cluster})
			}
		}
		return err
	})
	return b, err
}

// takeResources calls each for every item: logs and traces are alike down to it.
func takeResources(message []byte, each func(item []byte, cluster string) error) error {
	return only(message, 1, func(resource []byte) error {
		cluster := ""
		err := only(resource, 1, func(attributes []byte) (err error) {
			cluster, err = clusterOf(attributes)
			return err
		})
		if err != nil {
			return err
		}
		return only(resource, 2, func(scope []byte) error {
			return only(scope, 2, func(item []byte) error { return each(item, cluster) })
		})
	})
}

func clusterOf(resource []byte) (cluster string, err error) {
	err = only(resource, 1, func(attribute []byte) error {
		wanted := false
		if err := only(attribute, 1, func(key []byte) error {
			wanted = string(key) == clusterAttribute
			return nil
		}); err != nil || !wanted {
			return err
		}
		return only(attribute, 2, func(value []byte) error {
			return only(value, 1, func(text []byte) error {
				cluster = string(text)
				return nil
			})
		})
	})
	return cluster, err
}
