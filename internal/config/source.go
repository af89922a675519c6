package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclparse"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/sqlwatch/sqlwatch/internal/quote"
	"github.com/sqlwatch/sqlwatch/policy/lang/limits"
)

// Limits of what is parsed. The parser recurses, and deep nesting overflows the stack, which no
// program survives. So the bytes are checked first.
const (
	maxFileSize = 1 << 20
	maxNesting  = 200
	maxFiles    = 1000
)

// source has the parsed files of a configuration.
type source struct {
	bodies []hcl.Body
	files  map[string]*hcl.File
	loose  []string // files that users other than the owner may read
}

// ErrUnreadable marks diagnostics about files that could not be read at all, through
// Diagnostic.Extra.
var ErrUnreadable = errors.New("cannot be read")

// Unreadable reports whether a diagnostic says that a file could not be read, rather
// than what is wrong in it.
func Unreadable(diags hcl.Diagnostics) bool {
	return slices.ContainsFunc(diags, func(d *hcl.Diagnostic) bool { return d.Extra == ErrUnreadable })
}

// read parses a file, or every *.hcl and *.hcl.json of a directory except policy tests. The order of
// the files does not matter.
func read(path string) (*source, hcl.Diagnostics) {
	src := &source{files: map[string]*hcl.File{}}
	names, err := list(path)
	if err != nil {
		return src, unreadable(path, err)
	}
	var diags hcl.Diagnostics
	parser := hclparse.NewParser()
	for _, name := range names {
		diags = append(diags, src.parse(parser, name)...)
	}
	return src, diags
}

func unreadable(path string, err error) hcl.Diagnostics {
	return hcl.Diagnostics{{Severity: hcl.DiagError, Summary: "Cannot read the configuration",
		Detail:  fmt.Sprintf("%s: %v.", path, err),
		Subject: &hcl.Range{Filename: path, Start: hcl.InitialPos, End: hcl.InitialPos}, Extra: ErrUnreadable}}
}

func list(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		n := e.Name()
		if !strings.HasPrefix(n, ".") && !strings.HasSuffix(n, testSuffix) &&
			(strings.HasSuffix(n, ".hcl") || strings.HasSuffix(n, ".hcl.json")) {
			names = append(names, filepath.Join(path, n))
		}
	}
	switch {
	case len(names) == 0:
		return nil, errors.New("the directory holds no *.hcl file")
	case len(names) > maxFiles:
		return nil, fmt.Errorf("the directory holds %d files, at most %d are read", len(names), maxFiles)
	}
	return names, nil
}

// testSuffix is the end of the names of files with policy tests.
const testSuffix = "_test.hcl"

// listTests returns the files with the tests of a configuration.
func listTests(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		base := strings.TrimSuffix(strings.TrimSuffix(path, ".json"), ".hcl")
		return []string{base + testSuffix}, nil
	}
	names, err := filepath.Glob(filepath.Join(path, "*"+testSuffix))
	if err == nil && len(names) == 0 {
		err = errors.New("the directory holds no *" + testSuffix + " file")
	}
	return names, err
}

func (src *source) parse(parser *hclparse.Parser, name string) hcl.Diagnostics {
	data, mode, err := readFile(name)
	if err != nil {
		return unreadable(name, err)
	}
	tokens, insane := sane(name, data)
	if insane.HasErrors() {
		src.files[name] = &hcl.File{Bytes: data}
		return insane
	}
	if mode.Perm()&0o044 != 0 {
		src.loose = append(src.loose, name)
	}
	var f *hcl.File
	var diags hcl.Diagnostics
	if strings.HasSuffix(name, ".json") {
		f, diags = parser.ParseJSON(data, name)
	} else {
		f, diags = parser.ParseHCL(data, name)
	}
	if f != nil {
		quote.Hide(f, name, tokens)
		src.files[name] = f
		src.bodies = append(src.bodies, f.Body)
	}
	return diags
}

// readFile reads a regular file up to the limit. A FIFO must not block us, so it opens the file
// without waiting and checks its type before it reads.
func readFile(name string) ([]byte, os.FileMode, error) {
	if err := noDatabase(name); err != nil {
		return nil, 0, err
	}
	f, err := os.OpenFile(name, os.O_RDONLY|nonblock, 0)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	if !info.Mode().IsRegular() {
		return nil, 0, errors.New("not a regular file")
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFileSize+1))
	if err != nil {
		return nil, 0, err
	}
	if len(data) > maxFileSize {
		return nil, 0, fmt.Errorf("larger than %d bytes", maxFileSize)
	}
	return data, info.Mode(), nil
}

// noDatabase refuses a database and its side files without opening them. A daemon that reloads may be connected to
// that database, and would lose all its locks on a file that it closes.
func noDatabase(name string) error {
	path, err := filepath.EvalSymlinks(name)
	if err != nil {
		return nil // opening it says what is wrong
	}
	_, err = os.Lstat(path + "-shm")
	if err == nil || strings.HasSuffix(path, "-shm") || strings.HasSuffix(path, "-wal") {
		return errors.New("it is an SQLite database, or a file beside one")
	}
	return nil
}

// sane checks a file before it is parsed: it must be text, and not nested too deeply. Brackets in
// strings and comments count too, which is on the safe side.
func sane(name string, data []byte) (hclsyntax.Tokens, hcl.Diagnostics) {
	at := func(i int, summary, format string, args ...any) (hclsyntax.Tokens, hcl.Diagnostics) {
		pos := position(data, i)
		return nil, hcl.Diagnostics{{Severity: hcl.DiagError, Summary: summary, Detail: fmt.Sprintf(format, args...),
			Subject: &hcl.Range{Filename: name, Start: pos, End: pos}}}
	}
	if bytes.HasPrefix(data, []byte("\xef\xbb\xbf")) {
		return at(0, "Byte order mark", "Save the file as UTF-8 without a byte order mark.")
	}
	if i := bytes.IndexByte(data, 0); i >= 0 {
		return at(i, "Not text", "There is a zero byte here.")
	}
	for i := 0; i < len(data); {
		r, n := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && n == 1 {
			return at(i, "Not text", "These bytes are not UTF-8.")
		}
		i += n
	}
	depth := 0
	for i, c := range data {
		switch c {
		case '{', '[', '(':
			depth++
		case '}', ']', ')':
			depth = max(0, depth-1)
		}
		if depth > maxNesting {
			return at(i, "Nested too deep", "At most %d levels are allowed.", maxNesting)
		}
	}
	if strings.HasSuffix(name, ".json") {
		return nil, saneJSON(name, data) // the content of its strings is checked when they are parsed
	}
	tokens, _ := hclsyntax.LexConfig(data, name, hcl.InitialPos)
	return tokens, limits.CheckDepth(tokens)
}

// saneJSON rejects numbers of excessive size.
func saneJSON(name string, data []byte) hcl.Diagnostics {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	for {
		token, err := d.Token()
		if err != nil {
			return nil // the parser's message is better
		}
		text := fmt.Sprint(token)
		if limits.HugeNumber(text) {
			at := position(data, int(d.InputOffset())-1)
			return hcl.Diagnostics{{Severity: hcl.DiagError, Summary: "Number out of range",
				Detail:  "A number has at most 3 digits in its exponent and 1,000 in all.",
				Subject: &hcl.Range{Filename: name, Start: at, End: at}}}
		}
	}
}

// position returns the line and column of an offset.
func position(data []byte, i int) hcl.Pos {
	line := bytes.Count(data[:i], []byte("\n"))
	begin := bytes.LastIndexByte(data[:i], '\n') + 1
	return hcl.Pos{Line: line + 1, Column: i - begin + 1, Byte: i}
}

// ReadSource reads one configuration file within the limits of Load.
func ReadSource(name string) ([]byte, os.FileMode, hcl.Diagnostics) {
	data, mode, err := readFile(name)
	if err != nil {
		return nil, 0, unreadable(name, err)
	}
	_, diags := sane(name, data)
	return data, mode, diags
}
