//go:build !linux

package openfile

import "errors"

// At knows of /proc only.
func At(string) (Inode, error) { return Inode{}, errors.ErrUnsupported }
