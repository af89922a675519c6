// Package config turns configuration files into domain values, once and strictly: its results have
// been checked for syntax, names, units, ranges and contradictions, and every error names its
// place in the file.
package config

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"

	"github.com/sqlwatch/sqlwatch/internal/notify/channel"
	"github.com/sqlwatch/sqlwatch/internal/quote"
	"github.com/sqlwatch/sqlwatch/policy"
)

// Config is a checked configuration.
type Config struct {
	Server    Server
	Uploads   Uploads
	Databases []Database                 // in file order
	Replicas  map[string]ReplicaTemplate // by "s3.main"
	Notifiers map[string]Notifier        // by "webhook.ops"
	Policies  *policy.Set
	Files     map[string]*hcl.File // sources, for diagnostics

	env *environment // what the configuration read from environment and files; nil for Default
}

// Server configures the daemon itself.
type Server struct {
	Listen   string `json:"listen"`    // TCP address of the read-only pages
	Admin    string `json:"admin"`     // "unix://" and the path of the admin socket
	StateDir string `json:"state_dir"` // absolute

	AllowEmpty bool `json:"allow_empty,omitempty"` // a reload may leave no database
}

// Uploads limits what all replicas together send.
type Uploads struct {
	AtOnce    int   `json:"at_once,omitempty"`   // large files at a time; 0: the default
	Bandwidth int64 `json:"bandwidth,omitempty"` // bytes per second; 0: unlimited
}

// DefaultServer returns the server settings that the configuration does not set. A systemd unit, or
// an image, sets STATE_DIRECTORY and RUNTIME_DIRECTORY to the directories that may be written to; if
// one has several, separated by colons, the first is used.
func DefaultServer(env func(string) (string, bool)) Server {
	directory := func(name, otherwise string) string {
		value, _ := env(name)
		if first, _, _ := strings.Cut(value, ":"); filepath.IsAbs(first) {
			return first
		}
		return otherwise
	}
	return Server{
		Listen:   "127.0.0.1:9942",
		Admin:    "unix://" + filepath.Join(directory("RUNTIME_DIRECTORY", "/run/sqlwatch"), "admin.sock"),
		StateDir: directory("STATE_DIRECTORY", "/var/lib/sqlwatch"),
	}
}

// Database is one database block: one file, or a pattern that matches many.
type Database struct {
	Name        string            `json:"name"` // the block's label
	Path        string            `json:"path,omitempty"`
	Glob        string            `json:"glob,omitempty"`
	Exclude     []string          `json:"exclude,omitempty"` // patterns of paths that the glob skips
	Labels      map[string]string `json:"labels,omitempty"`
	ReplicateTo []string          `json:"replicate_to,omitempty"` // replica names, as "s3.main"
	Restart     Restart           `json:"restart"`
	Range       hcl.Range         `json:"-"`

	nameTemplate *template // names the databases of a glob; nil: the name comes from the label and the wildcards' text
}

// Restart limits the live WAL of a replicated database.
type Restart struct {
	At          int64         `json:"at"` // bytes
	StallBudget time.Duration `json:"stall_budget"`
}

// DefaultRestart is the soft restart that the configuration does not set.
func DefaultRestart() Restart { return Restart{At: 32e6, StallBudget: 50 * time.Millisecond} }

// Notifier is a destination of notifications.
type Notifier struct {
	Name   string         `json:"name"` // "webhook.ops"
	Type   string         `json:"type"`
	Target channel.Target `json:"-"` // prints as its name, because addresses contain tokens
	Range  hcl.Range      `json:"-"`
}

// DatabaseTarget is one database to watch: a path block, or one match of a glob.
type DatabaseTarget struct {
	Name     string            `json:"name"`
	Path     string            `json:"path"`
	Labels   map[string]string `json:"labels,omitempty"`
	Restart  Restart           `json:"restart"`
	Replicas []ReplicaTarget   `json:"replicas,omitempty"`
	Range    hcl.Range         `json:"-"` // of the block it comes from
	Block    string            `json:"-"` // that block's label
	Glob     bool              `json:"-"` // the block has a glob
}

// ReplicaTarget is the place to which one database is replicated.
type ReplicaTarget struct {
	Name          string        `json:"name"` // "s3.main"
	Type          string        `json:"type"` // s3 or file
	SyncEvery     time.Duration `json:"sync_every"`
	SnapshotEvery time.Duration `json:"snapshot_every"`
	SnapshotFull  time.Duration `json:"snapshot_full_every"` // the longest time until the next full copy
	RetentionKeep time.Duration `json:"retention_keep"`
	// The ages at which restore points of every sync, of every 30 s and of every 5 min may be deleted,
	// in this order; 0: not before RetentionKeep. nil: none is.
	RetentionThin []time.Duration `json:"retention_thin,omitempty"`
	VerifyEvery   time.Duration   `json:"verify_every"` // 0: never
	S3            S3              `json:"s3,omitzero"`
	File          File            `json:"file,omitzero"`
}

// S3 is an S3-compatible store.
type S3 struct {
	Bucket    string `json:"bucket"`
	Prefix    string `json:"prefix"` // without slashes at its ends
	Region    string `json:"region,omitempty"`
	Endpoint  string `json:"endpoint,omitempty"`   // "": the provider's own
	PathStyle bool   `json:"path_style,omitempty"` // the bucket is a part of the path
	// path_style = false was set: the bucket is part of the host name. If neither is set, the provider decides
	HostStyle    bool   `json:"host_style,omitempty"`
	CAFile       string `json:"ca_file,omitempty"`
	AccessKey    Secret `json:"access_key,omitempty"` // "": the SDK's default chain
	SecretKey    Secret `json:"secret_key,omitempty"`
	SessionToken Secret `json:"session_token,omitempty"`
}

// File is a directory on this machine, local or mounted.
type File struct {
	Dir string `json:"dir"` // absolute
}

// Secret is text that prints as "(secret)" in every format.
type Secret string

// Reveal returns the text itself, for the one place that needs it.
func (s Secret) Reveal() string { return string(s) }

// String hides the text.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return quote.Hidden
}

// GoString hides the text from %#v.
func (s Secret) GoString() string { return fmt.Sprintf("%q", s.String()) }

// Format hides the text from every verb, %x and %q too.
func (s Secret) Format(f fmt.State, _ rune) { fmt.Fprint(f, s.String()) }

// MarshalJSON hides the text.
func (s Secret) MarshalJSON() ([]byte, error) { return json.Marshal(s.String()) }

// LogValue hides the text.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }
