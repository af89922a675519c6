//go:build !linux

package filesystem

import "errors"

// Of knows of file systems on Linux only.
func Of(string) (Mount, error) { return Mount{}, errors.ErrUnsupported }

// Device knows of devices on Linux only.
func Device(string) (uint64, error) { return 0, errors.ErrUnsupported }

// Overlay knows of overlays on Linux only.
func Overlay(string) (string, error) { return "", nil }
