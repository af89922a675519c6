package main

import (
	"encoding/json"
	"io"
)

// writeJSON writes v indented, as every command does under --json.
func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
