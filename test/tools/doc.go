// Package tools is the module of the checkers `make lint` and `make vulncheck`
// run, apart so that they never enter the programs' module.
package tools
