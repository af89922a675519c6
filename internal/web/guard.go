package web

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
)

// guard lets through what a scraper, a person or a probe sends, and nothing
// else: no method that could change something, no name that an attacker's DNS
// pointed here, no page of another site.
func guard(next http.Handler, allowed hosts, contentPolicy string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", contentPolicy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		switch {
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			h.Set("Allow", "GET, HEAD")
			http.Error(w, "only GET is answered here; actions are on the admin socket: see sqlwatch --help",
				http.StatusMethodNotAllowed)
		case !allowed.contains(r.Host):
			http.Error(w, fmt.Sprintf("host %q is not known to this sqlwatch: run it with --web.allowed-host=NAME, or ask by "+
				"IP address", hostOf(r.Host)), http.StatusMisdirectedRequest)
		case foreign(r):
			http.Error(w, "pages of other sites may not read this one", http.StatusForbidden)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// foreign reports whether a browser sends the request for another site's page.
// Following a link to here is no such thing.
func foreign(r *http.Request) bool {
	if origin := r.Header.Get("Origin"); origin != "" {
		u, err := url.Parse(origin)
		if err != nil || u.Host != r.Host {
			return true
		}
	}
	site := r.Header.Get("Sec-Fetch-Site")
	return (site == "cross-site" || site == "same-site") && r.Header.Get("Sec-Fetch-Mode") != "navigate"
}

// hosts is the names under which this server may be asked. A name in a Host
// header that nobody configured is how DNS rebinding looks.
type hosts []string

func newHosts(configured []string) hosts {
	all := hosts{"localhost"}
	if name, err := os.Hostname(); err == nil {
		all = append(all, strings.ToLower(name))
	}
	for _, name := range configured {
		all = append(all, strings.ToLower(name))
	}
	return all
}

func (h hosts) contains(hostport string) bool {
	host := strings.ToLower(hostOf(hostport))
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return true
	}
	return slices.Contains(h, "*") || slices.Contains(h, host)
}

func hostOf(hostport string) string {
	if host, _, err := net.SplitHostPort(hostport); err == nil {
		return host
	}
	return hostport
}
