//go:build !shortlease

// Package plant plants panics in the program that tests run, so that they can show how sqlwatch
// survives its own bugs.
package plant

// Panic panics in a test's build, where $SQLWATCH_TEST_PANIC names the place. In every other
// build it does nothing.
func Panic(string, string) {}
