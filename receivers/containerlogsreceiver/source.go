package containerlogsreceiver

import (
	"path/filepath"
	"strconv"
	"strings"

	"go.opentelemetry.io/collector/pdata/pcommon"
)

// source is where the lines of a file come from, as its path tells it.
type source struct {
	namespace, pod, uid, container string
	restartCount                   int64 // -1 when the file name is not a number
	path                           string
	showPath                       bool // its resource names the path also when it names a container
}

// parseSource reads <namespace>_<pod>_<uid>/<container>/<n>.log from the end of
// a path. Names of Kubernetes objects hold no '_', so there are exactly two.
func parseSource(path string) (source, bool) {
	s := source{path: path, restartCount: -1}
	rest, file := cutLast(path)
	rest, container := cutLast(rest)
	_, pod := cutLast(rest)
	namespace, pod, found := strings.Cut(pod, "_")
	name, uid, found2 := strings.Cut(pod, "_")
	if !found || !found2 || namespace == "" || name == "" || uid == "" || container == "" || strings.Contains(uid, "_") {
		return s, false
	}
	s.namespace, s.pod, s.uid, s.container = namespace, name, uid, container
	number, _, _ := strings.Cut(file, ".")
	if n, err := strconv.ParseUint(number, 10, 31); err == nil {
		s.restartCount = int64(n)
	}
	return s, true
}

// cutLast splits a path at its last separator.
func cutLast(path string) (before, after string) {
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return "", path
	}
	return path[:i], path[i+1:]
}

// sourceOf names the source of the file at path. A symbolic link that does not
// follow the layout itself (/var/log/containers) is resolved step by step; a
// file outside the layout is known by its path alone.
func sourceOf(path string, readLink func(string) (string, error)) source {
	s, ok := parseSource(path)
	for step, at := 0, path; !ok && step < 8; step++ {
		target, err := readLink(at)
		if err != nil {
			break
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(at), target)
		}
		at = target
		if found, matches := parseSource(at); matches {
			return found
		}
	}
	return s
}

// put writes the source into the attributes of a resource.
func (s *source) put(attributes pcommon.Map) {
	if s.namespace == "" {
		attributes.PutStr(attributeFilePath, strings.ToValidUTF8(s.path, "\uFFFD"))
		return
	}
	attributes.EnsureCapacity(6)
	attributes.PutStr(attributeNamespace, strings.ToValidUTF8(s.namespace, "\uFFFD"))
	attributes.PutStr(attributePod, strings.ToValidUTF8(s.pod, "\uFFFD"))
	attributes.PutStr(attributePodUID, strings.ToValidUTF8(s.uid, "\uFFFD"))
	attributes.PutStr(attributeContainer, strings.ToValidUTF8(s.container, "\uFFFD"))
	if s.restartCount >= 0 {
		attributes.PutInt(attributeRestartCount, s.restartCount)
	}
	if s.showPath {
		attributes.PutStr(attributeFilePath, strings.ToValidUTF8(s.path, "\uFFFD"))
	}
}
