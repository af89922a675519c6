// Package examples holds configurations to start from. Tests parse and run
// every one; the quickstart's policy is also the one that is built in.
package examples

import _ "embed"

// Quickstart is a configuration of one database and one policy.
//
//go:embed quickstart.hcl
var Quickstart []byte
