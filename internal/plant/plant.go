//go:build !shortlease

// Package plant puts faults of sqlwatch itself into the program that tests run: how it
// survives its own bugs can be seen with none at hand.
package plant

// Panic panics in a test's build, where $SQLWATCH_TEST_PANIC names the place. In every other
// build it does nothing.
func Panic(string, string) {}
