//go:build shortlease

// Package plant puts faults of sqlwatch itself into the program that tests run: how it
// survives its own bugs can be seen with none at hand.
package plant

import (
	"os"
	"slices"
	"strings"
)

var planted = strings.Split(os.Getenv("SQLWATCH_TEST_PANIC"), ",")

// Panic panics where $SQLWATCH_TEST_PANIC names the place: "request /path" or "turn database".
func Panic(what, of string) {
	if slices.Contains(planted, what+" "+of) {
		panic("planted by a test: " + what + " " + of)
	}
}
