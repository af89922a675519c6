package statedir

import (
	"crypto/rand"
	"encoding/hex"
)

// NewLineage returns the name of a new lineage.
func NewLineage() string {
	var b [8]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}
