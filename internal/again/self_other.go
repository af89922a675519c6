//go:build !linux

package again

import "os"

// Self is this program's file.
func Self() (string, error) { return os.Executable() }
