package e2e

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/testbrowser"
)

var screenshot = flag.String("screenshot", "", "write the page's picture, for the README, to this file")

// The page of a daemon at work shows real databases with a writer, a replica, policies that act
// and a drill, and one that somebody has deleted. `go test -run PageOfADaemon -screenshot
// ../../docs/page.png` regenerates the README's picture.
func TestPageOfADaemonAtWork(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "srv") // a short path, for the picture
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	at := func(name string) string { return filepath.Join(dir, name+".db") }
	for _, name := range []string{"accounts", "orders", "sessions"} {
		runWriter(t, at(name), 1, 200)
	}
	configuration := ""
	for _, name := range []string{"accounts", "orders", "sessions"} {
		configuration += fmt.Sprintf("database %q {\n  path = %q\n  replicate_to = [replica.file.nas]\n}\n", name, at(name))
	}
	d := startDaemon(t, configuration+fmt.Sprintf(`
replica "file" "nas" { dir = "%s/replica/${db.name}" }
window "night" {
  cron     = "0 2 * * *"
  duration = "3h"
  timezone = "Europe/Berlin"
}
policy "shrink-wal" {
  when     = wal.bytes > bytes("500kB")
  cooldown = "2s"
  checkpoint {
    stall_budget = "500ms"
    step "passive" {}
    step "truncate" {}
  }
}
policy "empty-wal-at-night" {
  when   = wal.bytes > bytes("1kB")
  window = window.night
  checkpoint {
    stall_budget = "200ms"
    step "truncate" {}
  }
}`, dir))
	for _, name := range []string{"accounts", "orders"} {
		writer := exec.Command("python3", "writer.py", at(name), "600", "60")
		if err := writer.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = writer.Process.Kill(); _ = writer.Wait() })
	}
	socket := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn,
		error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", d.dir+"/admin.sock")
	}}}
	eventually(t, time.Minute, "a drill to pass", func() error {
		answer, err := socket.Post("http://sqlwatch/v1/verify?db=orders", "", nil)
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		if err == nil && !strings.Contains(string(text), `"ok":true`) {
			err = fmt.Errorf("%s", text)
		}
		return err
	})
	if err := os.Remove(at("sessions")); err != nil {
		t.Fatal(err)
	}

	b := testbrowser.New(t)
	b.Screen(1280, 900, "light")
	b.Open(d.url + "/?open=orders")
	const details = `document.querySelector("#db-orders .more").innerText.toLowerCase()`
	for what, condition := range map[string]string{
		"trouble first":      `document.querySelector("#databases > tbody").id === "db-sessions"`,
		"the cure":           `document.querySelector("#databases > tbody").innerText.includes("sqlwatch restore sessions")`,
		"the freshness":      details + `.includes("file.nas") && ` + details + `.includes("current")`,
		"the restore range":  details + `.match(/can be restored from\s+\S+.* ago to/) !== null`,
		"the snapshot's age": details + `.match(/last snapshot\s+[\d.]+ \S+.* ago/) !== null`,
		"each policy":        details + `.includes("shrink-wal") && ` + details + `.includes("empty-wal-at-night")`,
		"each one's sentence": `[...document.querySelectorAll("#db-orders .more .lines li")].every((l) =>
			l.innerText.length > 30)`,
		"the last actions": details + `.match(/checkpoint (truncated|shortened)/) !== null`,
	} {
		b.Await(what, condition)
	}
	for what, problems := range map[string][]string{"contrast": b.Contrast(), "too wide": b.TooWide()} {
		if len(problems) > 0 {
			t.Errorf("%s:\n  %s", what, strings.Join(problems, "\n  "))
		}
	}
	if *screenshot != "" {
		// An hour of history would show more, but two minutes are enough.
		eventually(t, 5*time.Minute, "two minutes of the sparkline", func() error {
			text, err := get(d.url + "/api/v1/databases?db=orders")
			if err == nil && !regexp.MustCompile(`"behind_by_minute_seconds":\[[\d.]+,[\d.]+,`).MatchString(text) {
				err = fmt.Errorf("they have not passed: %s", text)
			}
			return err
		})
		b.Await("them to be shown", `document.querySelector("#db-orders .within") !== null`)
		b.Eval(`scrollTo(0, 0)`)
		if err := os.WriteFile(*screenshot, flat(t, b.Picture()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	watchLive(t, b, at("orders"))
	d.end(syscall.SIGKILL)
	b.Await("the page to say that it is old and since when, in grey", `document.title.includes("does not answer") &&
		document.getElementById("stale").innerText.match(/has not answered since \d+:\d+/) !== null &&
		getComputedStyle(document.querySelector("main")).filter.includes("grayscale") &&
		/\d+:\d+/.test(document.getElementById("updated").innerText)`)
}

// watchLive checks that an open page, under the daemon's own headers, shows a figure that changes
// and a database that gets into trouble, and keeps what a person has typed, focused and unfolded.
func watchLive(t *testing.T, b *testbrowser.Browser, db string) {
	t.Helper()
	if ran := b.Eval(`(() => { const s = document.createElement("script"); s.textContent = "window.ran = true";
		document.body.append(s); return window.ran === true; })()`); ran != false {
		t.Error("the page's policy allows scripts that are not its own")
	}
	b.Eval(`(() => { const f = document.querySelector("form"); f.elements.q.value = "or";
		f.dispatchEvent(new Event("input")); })()`)
	b.Await("the filter", `document.querySelectorAll("#databases > tbody").length === 1`)
	b.Eval(`document.querySelector("#db-orders a").focus();
		window.seen = document.querySelector("#db-orders .more").innerText`)
	b.Await("a new figure", `document.querySelector("#db-orders .more").innerText !== window.seen`)
	if err := os.Remove(db); err != nil {
		t.Fatal(err)
	}
	b.Await("the trouble", `document.querySelector("#db-orders").className === "bad" &&
		document.querySelector("#db-orders").innerText.includes("missing")`)
	for what, condition := range map[string]string{
		"the focus":          `document.activeElement.dataset.db === "orders"`,
		"the filter":         `document.querySelector("form").elements.q.value === "or" && location.search.includes("q=or")`,
		"the rows":           `document.querySelectorAll("#databases > tbody").length === 1`,
		"what was unfolded":  `document.querySelector("#db-orders .more") !== null`,
		"that it is fresh":   `!document.body.classList.contains("stale")`,
		"the verdict's tone": `document.querySelector(".verdict").classList.contains("bad")`,
	} {
		if b.Eval(condition) != true {
			t.Errorf("%s was not kept: the page says\n%v", what, b.Eval("document.body.innerText"))
		}
	}
}

// flat returns the picture with its 256 most frequent colours: text and bars need no more, and
// the file has a third of the size.
func flat(t *testing.T, text []byte) []byte {
	t.Helper()
	in, err := png.Decode(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	size := in.Bounds()
	count := map[color.RGBA]int{}
	at := func(x, y int) color.RGBA {
		r, g, b, _ := in.At(x, y).RGBA()
		return color.RGBA{uint8(r >> 8), uint8(g >> 8), uint8(b >> 8), 255}
	}
	for y := size.Min.Y; y < size.Max.Y; y++ {
		for x := size.Min.X; x < size.Max.X; x++ {
			count[at(x, y)]++
		}
	}
	var palette color.Palette
	for len(palette) < 256 && len(count) > 0 {
		most := color.RGBA{}
		for c, n := range count {
			if n > count[most] {
				most = c
			}
		}
		if len(palette) == 0 || count[most] > 0 {
			palette = append(palette, most)
		}
		delete(count, most)
	}
	out := image.NewPaletted(size, palette)
	for y := size.Min.Y; y < size.Max.Y; y++ {
		for x := size.Min.X; x < size.Max.X; x++ {
			out.Set(x, y, at(x, y))
		}
	}
	var packed bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&packed, out); err != nil {
		t.Fatal(err)
	}
	return packed.Bytes()
}
