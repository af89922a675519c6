package config

import (
	"fmt"
	"maps"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclparse"
	"github.com/zclconf/go-cty/cty"

	"github.com/sqlwatch/sqlwatch/internal/hcldecode"
	"github.com/sqlwatch/sqlwatch/internal/quote"
	"github.com/sqlwatch/sqlwatch/policy"
	"github.com/sqlwatch/sqlwatch/policy/lang"
	"github.com/sqlwatch/sqlwatch/policy/policytest"
)

// loading is one call of Load.
type loading struct {
	hcldecode.Decoder
	cfg    *Config
	env    *environment
	places map[string]hcl.Range // of every named block, by "database app"

	validations []validation // of the variables
}

// Load reads a configuration file or directory. env looks up an environment variable. The
// configuration is usable only if no diagnostic is an error; Files is filled in even then, so that
// diagnostics can quote it.
func Load(path string, env func(string) (string, bool)) (*Config, hcl.Diagnostics) {
	src, diags := read(path)
	e := newEnvironment(env)
	for _, f := range src.files {
		for _, text := range quote.Literals(f) {
			if !envName.MatchString(text) {
				e.conceal(text)
			}
		}
	}
	cfg := &Config{Server: DefaultServer(env), Replicas: map[string]ReplicaTemplate{},
		Notifiers: map[string]Notifier{}, Files: src.files}
	if diags.HasErrors() {
		return cfg, e.clean(diags)
	}
	cfg.env = e
	l := &loading{cfg: cfg, env: e, places: map[string]hcl.Range{}}
	l.Scope = &policy.Scope{Variables: map[string]cty.Value{}, Units: map[string]lang.Unit{}, Functions: e.functions(),
		Files: src.files, Scrub: e.scrub, Source: sourceOf(src.files)}
	content := l.Content(hcl.MergeBodies(src.bodies), topLevel())
	l.load(content)
	for _, name := range src.loose {
		if literalSecret(src.files[name]) {
			l.Warnf(hcl.Range{Filename: name, Start: hcl.InitialPos, End: hcl.InitialPos}, "Secrets in a readable file",
				"Other users can read %s, and it holds a secret: chmod 600, or take the secret from env() or file().", name)
		}
	}
	e.sealed = true
	return cfg, e.clean(append(diags, l.Diags...))
}

// sourceOf returns a function that quotes a range of a file, without the secrets in it.
func sourceOf(files map[string]*hcl.File) func(hcl.Range) (string, bool) {
	return func(r hcl.Range) (string, bool) {
		return quote.Place(files[r.Filename], r)
	}
}

// LoadTests reads the policy tests of the configuration that Load has read from path: for
// off-peak.hcl those in off-peak_test.hcl, for a directory those in every *_test.hcl. It adds their
// sources to Files.
func (c *Config) LoadTests(path string) ([]*policytest.Test, hcl.Diagnostics) {
	names, err := listTests(path)
	if err != nil {
		return nil, unreadable(path, err)
	}
	src := &source{files: c.Files}
	parser := hclparse.NewParser()
	var diags hcl.Diagnostics
	for _, name := range names {
		diags = append(diags, src.parse(parser, name)...)
	}
	c.env.sealed = false
	defer func() { c.env.sealed = true }()
	tests, more := policytest.Parse(c.Policies, hcl.MergeBodies(src.bodies))
	return tests, c.env.clean(append(diags, more...))
}

func topLevel() *hcl.BodySchema {
	return &hcl.BodySchema{Blocks: append(policy.Blocks(),
		hcl.BlockHeaderSchema{Type: "server"},
		hcl.BlockHeaderSchema{Type: "uploads"},
		hcl.BlockHeaderSchema{Type: "variable", LabelNames: []string{"name"}},
		hcl.BlockHeaderSchema{Type: "locals"},
		hcl.BlockHeaderSchema{Type: "database", LabelNames: []string{"name"}},
		hcl.BlockHeaderSchema{Type: "replica", LabelNames: []string{"type", "name"}},
		hcl.BlockHeaderSchema{Type: "notifier", LabelNames: []string{"type", "name"}},
	)}
}

func (l *loading) load(content *hcl.BodyContent) {
	blocks := content.Blocks
	l.variables(blocks.OfType("variable"))
	l.locals(blocks.OfType("locals"))
	l.validate()
	if b := l.Single(blocks, "server"); b != nil {
		l.server(b)
	}
	if b := l.Single(blocks, "uploads"); b != nil {
		l.uploads(b)
	}
	for _, b := range blocks.OfType("replica") {
		l.replica(b)
	}
	for _, b := range blocks.OfType("notifier") {
		l.notifier(b)
	}
	l.Scope.Replicas = slices.Sorted(maps.Keys(l.cfg.Replicas))
	l.Scope.Notifiers = l.cfg.messaged()
	for _, b := range blocks.OfType("database") {
		l.database(b)
	}
	for _, d := range l.cfg.Databases {
		l.Scope.Databases = append(l.Scope.Databases, lang.Database{Name: d.Name, Many: d.Glob != "" || d.nameTemplate != nil,
			Labels: d.Labels, Replicas: d.ReplicateTo})
		for k := range d.Labels {
			if !slices.Contains(l.Scope.Labels, k) {
				l.Scope.Labels = append(l.Scope.Labels, k)
			}
		}
	}
	if l.Diags.HasErrors() {
		l.Scope.Databases = nil // what is known of them may be wrong
	}
	set, diags := policy.Parse(blocks, l.Scope)
	l.Diags = append(l.Diags, diags...)
	l.cfg.Policies = set
	if !l.Diags.HasErrors() {
		l.unused()
	}
}

// define records a named block and reports a second one of the same name.
func (l *loading) define(b *hcl.Block, key string) bool {
	if first, dup := l.places[key]; dup {
		l.Errorf(b.DefRange, "Duplicate "+b.Type, "There is a %s already, at %s:%d.", key, first.Filename, first.Start.Line)
		return false
	}
	l.places[key] = b.DefRange
	return true
}

func (l *loading) server(b *hcl.Block) {
	a := l.Content(b.Body, hcldecode.Attributes("listen", "admin", "state_dir", "allow_empty")).Attributes
	s := &l.cfg.Server
	s.Listen = l.Plain(a["listen"], s.Listen)
	s.Admin = l.Plain(a["admin"], s.Admin)
	s.StateDir = l.Plain(a["state_dir"], s.StateDir)
	s.AllowEmpty = l.Flag(a["allow_empty"], false)
	if !strings.HasPrefix(s.Admin, "unix:///") {
		l.Errorf(a["admin"].Expr.Range(), "Bad address",
			"admin must be unix:// and an absolute path: actions are never offered over TCP.")
	}
	if longest := len(syscall.RawSockaddrUnix{}.Path) - 1; a["admin"] != nil &&
		len(strings.TrimPrefix(s.Admin, "unix://")) > longest {
		l.Errorf(a["admin"].Expr.Range(), "Bad address",
			"The path of admin is longer than that of a socket can be: %d bytes.", longest)
	}
	if a["listen"] != nil && !listenable(s.Listen) {
		l.Errorf(a["listen"].Expr.Range(), "Bad address", "listen must be host:port, such as \"127.0.0.1:9942\" or "+
			"\":9942\". The port is a number up to 65535, or the name of a service that this machine knows.")
	}
	if !filepath.IsAbs(s.StateDir) {
		l.Errorf(a["state_dir"].Expr.Range(), "Relative path", "state_dir must be absolute.")
	}
}

// listenable reports whether an address has a port.
func listenable(address string) bool {
	_, port, err := net.SplitHostPort(address)
	if err == nil {
		_, err = net.LookupPort("tcp", port)
	}
	return err == nil && port != ""
}

func (l *loading) uploads(b *hcl.Block) {
	a := l.Content(b.Body, hcldecode.Attributes("at_once", "bandwidth")).Attributes
	l.cfg.Uploads.Bandwidth = l.Size(a["bandwidth"], 0, 64e3, 1e12)
	text := l.Plain(a["at_once"], "")
	if text == "" {
		return
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > 256 {
		l.Errorf(a["at_once"].Expr.Range(), "Out of range",
			"at_once is a whole number from 1 to 256: how many large files are uploaded at a time.")
		return
	}
	l.cfg.Uploads.AtOnce = n
}

// Default returns the configuration for bare paths: each is watched with the built-in policies and, if
// a URL is given, replicated there.
func Default(paths []string, replicaURL string) (*Config, error) {
	unset := func(string) (string, bool) { return "", false } // the caller knows where such a daemon may write
	cfg := &Config{Server: DefaultServer(unset), Replicas: map[string]ReplicaTemplate{}, Notifiers: map[string]Notifier{},
		Policies: policy.Defaults(), Files: map[string]*hcl.File{}}
	var replicas []string
	if replicaURL != "" {
		target, err := ParseReplicaURL(replicaURL)
		if err != nil {
			return nil, err
		}
		cfg.Replicas[target.Name] = ReplicaTemplate{Type: target.Type, Name: target.Name, fixed: &target,
			perDatabase: len(paths) > 1}
		replicas = []string{target.Name}
	}
	taken := map[string]bool{}
	for _, p := range paths {
		abs, err := filepath.Abs(p)
		if err != nil {
			return nil, fmt.Errorf("resolve %s: %w", p, err)
		}
		base := strings.TrimSuffix(filepath.Base(abs), filepath.Ext(abs))
		name := base
		for n := 2; taken[name]; n++ {
			name = fmt.Sprintf("%s-%d", base, n)
		}
		taken[name] = true
		cfg.Databases = append(cfg.Databases, Database{Name: name, Path: abs, ReplicateTo: replicas,
			Restart: DefaultRestart()})
	}
	return cfg, nil
}
