// Package imports holds the rules about which package may import which, and
// what must never be linked into the collector. They are tests over go list.
package imports
