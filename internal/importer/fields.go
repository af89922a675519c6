package importer

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// section is a mapping of the YAML file. Each setting is taken once; what is
// left at the end is told as dropped.
type section struct {
	c      *conversion
	name   string // "dbs[0].replica"
	fields map[string]*yaml.Node
	order  []string
}

func (c *conversion) section(node *yaml.Node, name string) (*section, error) {
	for node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	if node.Kind == yaml.ScalarNode && node.Tag == "!!null" {
		return &section{c: c, name: name}, nil
	}
	if node.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("line %d: %s should be a mapping", node.Line, nameOr(name, "the file"))
	}
	s := &section{c: c, name: name, fields: map[string]*yaml.Node{}}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key := node.Content[i].Value
		s.fields[key] = node.Content[i+1]
		s.order = append(s.order, key)
	}
	return s, nil
}

func nameOr(name, other string) string {
	if name == "" {
		return other
	}
	return name
}

// where names a setting with its line.
func (s *section) where(key string) string {
	name := strings.TrimPrefix(s.name+"."+key, ".")
	if n := s.fields[key]; n != nil {
		return fmt.Sprintf("%s, line %d", name, n.Line)
	}
	return name
}

// take returns a setting and marks it as dealt with; nil where it is not there
// or null.
func (s *section) take(key string) *yaml.Node {
	node := s.fields[key]
	s.ignore(key)
	if node != nil && node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	if node == nil || node.Tag == "!!null" {
		return nil
	}
	return node
}

// ignore marks a setting that needs no counterpart.
func (s *section) ignore(key string) {
	for i, k := range s.order {
		if k == key {
			s.order = append(s.order[:i:i], s.order[i+1:]...)
			return
		}
	}
}

func (s *section) text(key string) value {
	node := s.take(key)
	if node == nil {
		return value{}
	}
	if node.Kind != yaml.ScalarNode {
		s.c.drop(s.where(key), "it should be text")
		return value{}
	}
	return value{node.Value}
}

func (s *section) flag(key string, def bool) bool {
	node := s.take(key)
	if node == nil {
		return def
	}
	v, err := strconv.ParseBool(s.c.env.plain(node.Value))
	if err != nil {
		s.c.drop(s.where(key), "it should be true or false")
		return def
	}
	return v
}

func (s *section) duration(key string, def time.Duration) time.Duration {
	node := s.take(key)
	if node == nil {
		return def
	}
	d, err := time.ParseDuration(s.c.env.plain(node.Value))
	if err != nil || d < 0 {
		s.c.drop(s.where(key), "it should be a duration such as 1s or 24h")
		return def
	}
	return d
}

// sub returns a mapping within the section, nil where there is none.
func (s *section) sub(key string) *section {
	node := s.take(key)
	if node == nil {
		return nil
	}
	sub, err := s.c.section(node, strings.TrimPrefix(s.name+"."+key, "."))
	if err != nil {
		s.c.drop(s.where(key), "it should be a mapping")
		return nil
	}
	return sub
}

// list returns the mappings of a list.
func (s *section) list(key string) ([]*section, error) {
	node := s.take(key)
	if node == nil {
		return nil, nil
	}
	if node.Kind != yaml.SequenceNode {
		return nil, fmt.Errorf("%w: %s should be a list", ErrNotLitestream, s.where(key))
	}
	var out []*section
	for i, item := range node.Content {
		sub, err := s.c.section(item, fmt.Sprintf("%s[%d]", strings.TrimPrefix(s.name+"."+key, "."), i))
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrNotLitestream, err)
		}
		out = append(out, sub)
	}
	return out, nil
}

// tell reports every setting that nobody took.
func (s *section) tell() {
	for _, key := range s.order {
		switch why, known := reasons[key]; {
		case !known:
			s.c.drop(s.where(key), "Litestream has no such setting either")
		case why != "":
			s.c.drop(s.where(key), why)
		}
	}
	s.order = nil
}

// reasons says why settings have no counterpart. An empty reason: nothing is
// lost, sqlwatch does it on its own.
var reasons = map[string]string{
	// The daemon.
	"exec":                        "sqlwatch does not start your application: let systemd or the container start both",
	"logging":                     "use the flags of `sqlwatch run`: --log.level, --log.format",
	"mcp-addr":                    "there is no MCP server",
	"socket":                      "", // server.admin is always there
	"levels":                      "levels of compaction are fixed at 30 s, 5 min and 1 h",
	"l0-retention":                "captures are kept for as long as a restore may need them: see retention.keep",
	"l0-retention-check-interval": "",
	"verify-compaction":           "", // always
	"retention": "sqlwatch deletes what no restore needs; where the bucket's own rules shall delete, " +
		"give it keys without s3:DeleteObject",
	"retention-check-interval": "",
	"heartbeat-url":            "use an alert on sqlwatch_replica_caught_up_timestamp_seconds, or a policy with notify",
	"heartbeat-interval":       "",
	"shutdown-timeout":         "the last upload at shutdown has its own deadline",
	"shutdown-sync-timeout":    "the last upload at shutdown has its own deadline",
	"shutdown-sync-interval":   "",
	// Databases.
	"watch":            "",
	"pattern":          "it belongs to dir",
	"recursive":        "it belongs to dir",
	"meta-path":        "the state directory is server.state_dir for all databases",
	"meta-dir":         "the state directory is server.state_dir for all databases",
	"monitor-interval": "changes are noticed by events and by the wal-index, not at an interval",
	"checkpoint-interval": "policies decide about checkpoints: see `policy` blocks; the WAL of a replicated " +
		"database is kept below restart.at on its own",
	"busy-timeout":              "sqlwatch never waits for a lock; see stall_budget",
	"min-checkpoint-page-count": "see restart.at of the database block: 32MB by default",
	"max-checkpoint-page-count": "see restart.at of the database block: 32MB by default",
	"truncate-page-n":           "see restart.at of the database block: 32MB by default",
	"max-sync-wal-bytes":        "see restart.at of the database block: 32MB by default",
	"restore-if-db-not-exists": "run `sqlwatch restore --if-not-exists -o FILE DB` before the application starts " +
		"(systemd: ExecStartPre)",
	// Replicas.
	"max-sync-ltx-files":     "",
	"auto-recover":           "", // always: doubt means a comparison
	"sign-payload":           "",
	"sign-accept-encoding":   "",
	"require-content-md5":    "",
	"put-object-content-md5": "",
	"part-size":              "", // fixed at 8 MiB
	"concurrency":            "",
	"skip-verify":            "certificates are always checked: name the server's authority with ca_file",
	"storage-class":          "set a storage class by a rule of the bucket",
	"sse-customer-algorithm": "it belongs to a customer's key",
	"sse-kms-key-id":         "set the key as the bucket's default encryption",
}
