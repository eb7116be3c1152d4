// Package line says what the containers of the test print: numbered lines that
// whoever knows the number can rebuild, so that each can be checked to its last
// byte.
package line

import (
	"fmt"
	"strconv"
	"strings"
)

const (
	// longEvery lines one is longer than 16 KiB, where container runtimes split.
	longEvery = 40
	longBytes = 16<<10 + 1
	// stderrEvery lines one goes to standard error.
	stderrEvery = 3
)

// Stderr says whether line n goes to standard error.
func Stderr(n int) bool { return n%stderrEvery == stderrEvery-1 }

// Text is line n of a container, without newline.
func Text(id string, n int) string {
	head := id + " " + strconv.Itoa(n) + " "
	random := uint64(n)*0x9e3779b97f4a7c15 + uint64(len(id))
	next := func() uint64 {
		random = random*6364136223846793005 + 1442695040888963407
		return random >> 33
	}
	size := int(next() % 200)
	if n%longEvery == longEvery-1 {
		size = longBytes + int(next()%(48<<10))
	}
	var b strings.Builder
	b.Grow(len(head) + size)
	b.WriteString(head)
	for range size {
		b.WriteByte('a' + byte(next()%26))
	}
	return b.String()
}

// End is the last line of a container: it printed n lines before.
func End(id string, n int) string { return fmt.Sprintf("%s end %d", id, n) }

// Parse reads the container and number at the beginning of a line. For the last
// one end is true and n how many came before it.
func Parse(text string) (id string, n int, end bool, err error) {
	fields := strings.SplitN(text, " ", 3)
	if len(fields) < 3 {
		return "", 0, false, fmt.Errorf("%.60q is no line of a container of this test", text)
	}
	number := fields[1]
	if end = number == "end"; end {
		number = fields[2]
	}
	if n, err = strconv.Atoi(number); err != nil {
		return "", 0, false, fmt.Errorf("%.60q has no number", text)
	}
	return fields[0], n, end, nil
}
