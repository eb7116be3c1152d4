package containerlogsreceiver

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/longhaul/longhaul/internal/bytesize"
)

func TestFirstStartReadsYoungFilesWholeAndOfOldOnesTheLastBytes(t *testing.T) {
	n := newNode(t)
	n.config.StartAt = startAtRecent
	n.config.RecentBytes = 10 * bytesize.KiB
	old := newWriter(t, n.log("old"))
	old.clock = time.Now().Add(-time.Hour)
	lines := old.lines("old", 0, 2000)
	youngPath := n.log("young")
	young := newWriter(t, youngPath)
	young.clock = time.Now().Add(-time.Minute)
	want := young.lines("young", 0, 1000)
	require.NoError(t, os.Rename(youngPath, youngPath+".20261124-100000"))
	young.reopen()
	want = append(want, young.lines("young", 1000, 1000)...)
	small := newWriter(t, n.log("small"))
	want = append(want, small.lines("small and old", 0, 3)...)

	perLine := len("2026-11-23T10:00:00.001234567Z stdout F old line 1999\n")
	kept := (10<<10)/perLine + 1
	want = append(want, lines[len(lines)-kept:]...)
	n.start()
	n.expect(want...)
	said := n.logs.FilterMessageSnippet("old lines of container logs are not read").All()
	require.Len(t, said, 1)
	assert.Equal(t, int64(1), said[0].ContextMap()["files"])
	assert.Equal(t, said[0].ContextMap()["bytes"], n.counter("longhaul_containerlogs_skipped_bytes"))

	later := newWriter(t, n.log("later"))
	later.clock = time.Now().Add(-time.Hour)
	want = append(want, later.lines("later", 0, 2000)...)
	n.expect(want...)
	n.stop()
	meanwhile := newWriter(t, n.log("meanwhile"))
	meanwhile.clock = time.Now().Add(-time.Hour)
	want = append(want, meanwhile.lines("meanwhile", 0, 2000)...)
	n.start()
	n.expect(want...)
}

func TestFirstStartReadsWhatIsWrittenLaterToEmptyFiles(t *testing.T) {
	for _, startAt := range []string{startAtRecent, startAtEnd, startAtBeginning} {
		t.Run(startAt, func(t *testing.T) {
			n := newNode(t)
			n.config.StartAt = startAt
			w := newWriter(t, n.log("api"))
			n.start()
			n.expect(w.lines("api", 0, 5)...)
		})
	}
}

func TestFirstStartDoesNotTrustAFirstLineWithoutTime(t *testing.T) {
	n := newNode(t)
	n.config.StartAt = startAtRecent
	n.config.RecentBytes = bytesize.KiB
	newWriter(t, n.log("api")).raw(strings.Repeat("no format, no time\n", 10_000) + "last\n")
	n.start()
	require.Eventually(t, func() bool {
		got := n.sink.asRead()
		return len(got) > 0 && got[len(got)-1].body == "last"
	}, 20*time.Second, time.Millisecond)
	assert.Less(t, len(n.sink.records()), 100)
}

func TestContainersAreChosenByNamespacePodAndName(t *testing.T) {
	for name, test := range map[string]struct{ include, exclude, want []string }{
		"all":       {nil, nil, []string{"a", "b"}},
		"namespace": {[]string{"shop/*/*"}, nil, []string{"a", "b"}},
		"other":     {[]string{"kube-system/*/*"}, nil, nil},
		"container": {nil, []string{"*/*/a"}, []string{"b"}},
		"both":      {[]string{"*/till/*"}, []string{"shop/till/[bc]"}, []string{"a"}},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.config.IncludeContainers, n.config.ExcludeContainers = test.include, test.exclude
			for _, container := range []string{"a", "b"} {
				newWriter(t, n.log(container)).line(container)
			}
			outside := n.pods + "/x.log"
			newWriter(t, outside).line("outside")
			n.config.Include = append(n.config.Include, outside)
			n.start()
			n.expect(append(test.want, "outside")...)
			n.counts("longhaul_containerlogs_files", int64(len(test.want)+1))
		})
	}
}
