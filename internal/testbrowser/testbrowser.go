// Package testbrowser drives a headless Chromium, which enforces a page's headers and reports
// what a screen reader would announce. Only tests import it.
package testbrowser

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// Browser is a Chromium with one page, controlled over a pipe.
type Browser struct {
	t       *testing.T
	in      *os.File
	out     *bufio.Reader
	session string
	id      int
}

// New starts a Browser that ends with the test; if there is no Chromium, the test is skipped.
func New(t *testing.T) *Browser {
	t.Helper()
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("no chromium here")
	}
	profile, err := os.MkdirTemp("", "sqlwatch-browser")
	if err != nil {
		t.Fatal(err)
	}
	theirIn, ourOut, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	ourIn, theirOut, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(chromium, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync",
		"--user-data-dir="+profile, "--remote-debugging-pipe", "about:blank")
	cmd.ExtraFiles = []*os.File{theirIn, theirOut}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirIn.Close()
	theirOut.Close()
	t.Cleanup(func() {
		// Chromium's helper processes are in its group; one that is still ending may write to the
		// profile once more.
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		cmd.Wait()
		ourOut.Close()
		ourIn.Close()
		for range 100 {
			if os.RemoveAll(profile) == nil {
				return
			}
			<-time.After(10 * time.Millisecond)
		}
	})
	b := &Browser{t: t, in: ourOut, out: bufio.NewReader(ourIn)}
	target := b.Call("Target.createTarget", map[string]any{"url": "about:blank"})["targetId"]
	page := b.Call("Target.attachToTarget", map[string]any{"targetId": target, "flatten": true})
	b.session, _ = page["sessionId"].(string)
	b.Call("Page.enable", nil)
	return b
}

// Call sends one command of the DevTools protocol and returns its result.
func (b *Browser) Call(method string, params map[string]any) map[string]any {
	b.t.Helper()
	b.id++
	message := map[string]any{"id": b.id, "method": method}
	if params != nil {
		message["params"] = params
	}
	if b.session != "" {
		message["sessionId"] = b.session
	}
	text, err := json.Marshal(message)
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := b.in.Write(append(text, 0)); err != nil {
		b.t.Fatal(err)
	}
	for {
		text, err := b.out.ReadBytes(0)
		if err != nil {
			b.t.Fatalf("%s: the browser has gone: %v", method, err)
		}
		var answer struct {
			ID     int
			Result map[string]any
			Error  any
		}
		if err := json.Unmarshal(text[:len(text)-1], &answer); err != nil {
			b.t.Fatal(err)
		}
		if answer.ID == b.id {
			if answer.Error != nil {
				b.t.Fatalf("%s: %v", method, answer.Error)
			}
			return answer.Result
		}
	}
}

// Open navigates to an address.
func (b *Browser) Open(address string) {
	b.t.Helper()
	b.Call("Page.navigate", map[string]any{"url": address})
}

// Eval returns the value of an expression in the page.
func (b *Browser) Eval(expression string) any {
	b.t.Helper()
	answer := b.Call("Runtime.evaluate", map[string]any{"expression": expression, "returnByValue": true,
		"awaitPromise": true})
	if problem := answer["exceptionDetails"]; problem != nil {
		b.t.Fatalf("%s: %v", expression, problem)
	}
	result, _ := answer["result"].(map[string]any)
	return result["value"]
}

// Texts returns the strings that an expression evaluates to.
func (b *Browser) Texts(expression string) (texts []string) {
	b.t.Helper()
	list, _ := b.Eval(expression).([]any)
	for _, v := range list {
		text, _ := v.(string)
		texts = append(texts, text)
	}
	return texts
}

// Await polls until the expression is true. An exception counts as false, because a page that is
// still loading has no body.
func (b *Browser) Await(what, expression string) {
	b.t.Helper()
	expression = "(() => { try { return " + expression + "; } catch { return false; } })()"
	for deadline := time.Now().Add(time.Minute); b.Eval(expression) != true; <-time.After(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			b.t.Fatalf("waited in vain for %s at %v; the page says:\n%v", what, b.Eval("location.href"),
				b.Eval("document.body?.innerText"))
		}
	}
}

// Press presses and releases a key: a letter, or a name such as Tab or Enter.
func (b *Browser) Press(key string) {
	b.t.Helper()
	params := map[string]any{"type": "keyDown", "key": key, "code": key}
	code := map[string]int{"Tab": 9, "Enter": 13, "Escape": 27}[key]
	switch {
	case key == "Enter":
		params["text"] = "\r"
	case code == 0:
		params["text"], code = key, int(key[0])
	}
	params["windowsVirtualKeyCode"] = code
	b.Call("Input.dispatchKeyEvent", params)
	delete(params, "text")
	params["type"] = "keyUp"
	b.Call("Input.dispatchKeyEvent", params)
}

// Screen sets the window's size, and the colour scheme: light or dark.
func (b *Browser) Screen(width, height int, scheme string) {
	b.t.Helper()
	b.Call("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": height, "deviceScaleFactor": 1,
		"mobile": width < 600})
	b.Call("Emulation.setEmulatedMedia", map[string]any{
		"features": []map[string]string{{"name": "prefers-color-scheme", "value": scheme}}})
}

// Picture returns a screenshot of the page, as PNG.
func (b *Browser) Picture() []byte {
	b.t.Helper()
	text, _ := b.Call("Page.captureScreenshot", map[string]any{"format": "png"})["data"].(string)
	data, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		b.t.Fatal(err)
	}
	return data
}
