package config

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
)

// ParseReplicaURL reads file:///dir or s3://bucket/prefix?endpoint=…&region=…&path_style=true. The
// credentials come from the SDK's default chain. Nothing in the URL is ignored: a parameter that is
// not understood might be meant to lead to another store or directory. An error never repeats
// the URL's credentials.
func ParseReplicaURL(s string) (ReplicaTarget, error) {
	t, err := parseReplicaURL(s)
	if err != nil {
		return ReplicaTarget{}, fmt.Errorf("parse replica URL %s: %w", withoutCredentials(s), err)
	}
	return t.normal()
}

// withoutCredentials returns the URL in a form that may be printed: without anything before an @,
// wherever that is, and without parameters.
func withoutCredentials(s string) string {
	scheme, rest, found := strings.Cut(s, "://")
	if !found {
		scheme, rest = "", s
	}
	rest, _, _ = strings.Cut(rest, "?")
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		rest = "…@" + rest[i+1:]
	}
	if strings.ContainsFunc(rest, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		rest = fmt.Sprintf("%q", rest)
	}
	if !found {
		return rest
	}
	return scheme + "://" + rest
}

func parseReplicaURL(s string) (ReplicaTarget, error) {
	if err := checkText(s); err != nil {
		return ReplicaTarget{}, err
	}
	u, err := url.Parse(s)
	if err != nil {
		return ReplicaTarget{}, errors.New("it is not a URL") // the library's text would repeat a password in it
	}
	if u.User != nil {
		return ReplicaTarget{}, errors.New("credentials do not belong into it: set AWS_ACCESS_KEY_ID and " +
			"AWS_SECRET_ACCESS_KEY")
	}
	t := ReplicaTarget{Name: u.Scheme + ".cli", Type: u.Scheme, SyncEvery: DefaultSyncEvery,
		SnapshotEvery: DefaultSnapshotEvery, SnapshotFull: DefaultSnapshotFull, RetentionKeep: DefaultRetentionKeep}
	switch {
	case u.Scheme != "file" && u.Scheme != "s3":
		return t, errors.New("the scheme must be file or s3")
	case !strings.HasPrefix(s, u.Scheme+"://"):
		return t, fmt.Errorf("%s is followed by three characters, \"://\"", u.Scheme)
	case u.Scheme == "file":
		t.File.Dir = u.Path
		return t, checkFileURL(s, u)
	}
	t.S3 = S3{Bucket: u.Host, Prefix: u.Path}
	switch {
	case u.Host == "":
		return t, errors.New("no bucket")
	case strings.ContainsAny(u.Host, ":[]"):
		return t, fmt.Errorf("%q is no bucket: a server and its port are written ?endpoint=http://HOST:PORT", u.Host)
	}
	return t, s3Query(&t.S3, u.RawQuery, len(s)-len(u.RawQuery))
}

// checkText rejects what the library would silently cut off or replace.
func checkText(s string) error {
	for i, r := range s {
		switch {
		case r == '#':
			return fmt.Errorf("character %d is a #, and what follows it would be passed over: write %%23", i+1)
		case r <= ' ' || r == 0x7f:
			return fmt.Errorf("character %d is a blank or a control character: write a blank as %%20", i+1)
		case r == '%' && !isEscape(s[i:]):
			return fmt.Errorf("character %d begins %.3q, which is no escape: write a %% as %%25", i+1, s[i:])
		}
	}
	return nil
}

func isEscape(s string) bool {
	_, err := url.PathUnescape(s[:min(3, len(s))])
	return err == nil
}

func checkFileURL(s string, u *url.URL) error {
	switch {
	case u.Host != "" || u.Path == "":
		return errors.New("a directory is written file:///dir")
	case strings.ContainsRune(s, '?'):
		return fmt.Errorf("a directory takes no parameters, and character %d is a ?: write it as %%3F where it belongs to "+
			"the name", strings.IndexByte(s, '?')+1)
	}
	return nil
}

// s3Query reads the parameters; the first begins after the given number of characters.
func s3Query(s *S3, query string, at int) error {
	seen := map[string]bool{}
	for pair := range strings.SplitSeq(query, "&") {
		place := fmt.Sprintf("parameter at character %d", at+1)
		at += len(pair) + 1
		if pair == "" && query == "" {
			return nil
		}
		if i := strings.IndexByte(pair, ';'); i >= 0 {
			return fmt.Errorf("%s: parameters are divided by &, not by ;: write %%3B where it belongs to the value", place)
		}
		rawName, rawValue, _ := strings.Cut(pair, "=")
		name, err1 := url.QueryUnescape(rawName)
		value, err2 := url.QueryUnescape(rawValue)
		switch {
		case errors.Join(err1, err2) != nil:
			return fmt.Errorf("%s: it cannot be read", place)
		case seen[name]:
			return fmt.Errorf("%s: %q is given twice", place, name)
		case value == "":
			return fmt.Errorf("%s: %q has no value", place, name)
		}
		seen[name] = true
		if err := s3Parameter(s, name, value); err != nil {
			return fmt.Errorf("%s: %w", place, err)
		}
	}
	return nil
}

func s3Parameter(s *S3, name, value string) error {
	switch name {
	case "endpoint":
		s.Endpoint = value
		return checkEndpoint(value)
	case "region":
		s.Region = value
	case "path_style":
		switch value {
		case "true", "1":
			s.PathStyle = true
		case "false", "0":
			s.HostStyle = true
		default:
			return fmt.Errorf("path_style is true or false, not %q", value)
		}
	default:
		return fmt.Errorf("unknown parameter %q; there is endpoint, region, path_style", name)
	}
	return nil
}

// checkEndpoint returns what is wrong with the address of a server; "" means the provider's own. It
// repeats no credentials.
func checkEndpoint(endpoint string) error {
	if endpoint == "" {
		return nil
	}
	address := endpoint
	if !strings.Contains(address, "://") {
		if scheme, _, odd := strings.Cut(address, ":/"); odd {
			return fmt.Errorf("endpoint begins with %s:/ and one slash only: write %s://", scheme, scheme)
		}
		address = "https://" + address
	}
	u, err := url.Parse(address)
	switch {
	case err != nil:
		return errors.New("endpoint is not a URL: write https://HOST or http://HOST:PORT")
	case u.User != nil:
		return errors.New("endpoint has credentials in it, which do not belong there: use credentials { access_key, " +
			"secret_key }, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
	case u.Scheme != "http" && u.Scheme != "https":
		return fmt.Errorf("endpoint begins with %s://: it is the address of the server, https://HOST or http://HOST:PORT",
			u.Scheme)
	case u.Hostname() == "":
		return fmt.Errorf("endpoint names no host after %s://", u.Scheme)
	case strings.ContainsAny(address, "?#"):
		return errors.New("endpoint takes no parameters: nothing stands behind a ? or # in it")
	case strings.ContainsFunc(u.Host, func(r rune) bool { return r <= ' ' || r == 0x7f }):
		return errors.New("endpoint has a blank in its host's name")
	}
	return nil
}

// URL returns the address by which commands reach the replica, in the form that ParseReplicaURL reads:
// without credentials and without a ca_file, which no URL has.
func (t ReplicaTarget) URL() string {
	if t.Type == "file" {
		return (&url.URL{Scheme: "file", Path: t.File.Dir}).String()
	}
	query := url.Values{}
	for name, value := range map[string]string{"endpoint": t.S3.Endpoint, "region": t.S3.Region} {
		if value != "" {
			query.Set(name, value)
		}
	}
	if t.S3.PathStyle || t.S3.HostStyle {
		query.Set("path_style", strconv.FormatBool(t.S3.PathStyle))
	}
	u := url.URL{Scheme: "s3", Host: t.S3.Bucket, Path: "/" + t.S3.Prefix, RawQuery: query.Encode()}
	return u.String()
}
