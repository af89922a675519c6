//go:build !linux

package web

import "errors"

func credentials(int) (peer, error) { return peer{}, errors.ErrUnsupported }

func unconnected() (int, error) { return -1, errors.ErrUnsupported }
