package e2e

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"sync/atomic"
	"testing"

	"github.com/sqlwatch/sqlwatch/replicator/store/s3/s3test"
)

// network is a bridge that connects network namespaces, each by a veth pair of its own, its
// cable, and this process. A packet to a host whose cable is pulled is lost silently.
type network struct {
	t       *testing.T
	bridge  string
	subnet  string // without the last number
	address string // of this process
	hosts   int
}

var networks atomic.Int32

// newNetwork returns false if namespaces are not available.
func newNetwork(t *testing.T) (*network, bool) {
	t.Helper()
	if os.Getuid() != 0 {
		return nil, false
	}
	n := int(networks.Add(1))
	nw := &network{t: t, bridge: fmt.Sprintf("sw%db%d", os.Getpid(), n),
		subnet: fmt.Sprintf("10.%d.%d.", 64+os.Getpid()%128, n)}
	nw.address = nw.subnet + "1"
	if exec.Command("ip", "link", "add", nw.bridge, "type", "bridge").Run() != nil {
		return nil, false
	}
	t.Cleanup(func() { output(t, "ip", "link", "del", nw.bridge) })
	output(t, "ip", "addr", "add", nw.address+"/24", "dev", nw.bridge)
	output(t, "ip", "link", "set", nw.bridge, "up")
	return nw, true
}

// serve runs a handler at this process's address in the network, and returns its URL.
func (nw *network) serve(h http.Handler) string {
	nw.t.Helper()
	l, err := net.Listen("tcp", nw.address+":0")
	must(nw.t, err)
	server := &httptest.Server{Listener: l, Config: &http.Server{Handler: h}}
	server.Start()
	nw.t.Cleanup(func() {
		if p, ok := h.(*s3test.Proxy); ok {
			p.LetGo()
		}
		server.CloseClientConnections() // connections of an unreachable host never end by themselves
		server.Close()
	})
	return server.URL
}

// netHost is a host with a network namespace of its own.
type netHost struct {
	t             *testing.T
	name, address string
	bridge, cable string
}

func (nw *network) host() *netHost {
	nw.t.Helper()
	nw.hosts++
	name := fmt.Sprintf("%sh%d", nw.bridge, nw.hosts)
	h := &netHost{t: nw.t, name: name, address: fmt.Sprint(nw.subnet, nw.hosts+1), bridge: nw.bridge, cable: name}
	output(nw.t, "ip", "netns", "add", name)
	nw.t.Cleanup(func() { output(nw.t, "ip", "netns", "del", name) })
	output(nw.t, "ip", "link", "add", h.cable, "type", "veth", "peer", "name", "eth0", "netns", name)
	output(nw.t, "ip", "link", "set", h.cable, "up")
	output(nw.t, "ip", "-n", name, "addr", "add", h.address+"/24", "dev", "eth0")
	output(nw.t, "ip", "-n", name, "link", "set", "eth0", "up")
	output(nw.t, "ip", "-n", name, "link", "set", "lo", "up")
	h.plug()
	return h
}

// pull removes its cable from the switch. The link stays up: the host does not notice.
func (h *netHost) pull() { output(h.t, "ip", "link", "set", h.cable, "nomaster") }

func (h *netHost) plug() { output(h.t, "ip", "link", "set", h.cable, "master", h.bridge) }

// in returns a command that runs program on the host.
func (h *netHost) in(program []string) []string {
	return append([]string{"ip", "netns", "exec", h.name}, program...)
}
