package show

import (
	"fmt"
	"strings"

	"github.com/agext/levenshtein"
)

// Nearest returns which of the known words was meant by one that is not among them, "" if
// none is near.
func Nearest(word string, known []string) string {
	best, distance := "", 2
	if len(word) > 3 {
		distance = max(2, len(word)/3) + 1
	}
	for _, k := range known {
		if len(word) > 1 && strings.HasPrefix(k, word) {
			return k
		}
		if d := levenshtein.Distance(word, k, nil); d < distance {
			best, distance = k, d
		}
	}
	return best
}

// Suggest returns Nearest as the end of a sentence, "" if there is nothing to suggest.
func Suggest(word string, known []string) string {
	if near := Nearest(word, known); near != "" {
		return fmt.Sprintf("; did you mean %s?", Text(near))
	}
	return ""
}
