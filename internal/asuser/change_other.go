//go:build !linux

package asuser

import "errors"

func changeTo(User) error { return errors.ErrUnsupported }
