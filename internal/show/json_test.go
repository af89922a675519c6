package show

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"
)

type inner struct {
	Stall time.Duration `json:"stall"`
	At    string        `json:"at,omitempty"` // the outer type has a field of this name too
	Took  time.Duration `json:"took_ns"`      // and one of this name, which becomes took_seconds
	Text  string        `json:"text,omitempty"`
}

type everything struct {
	inner
	At      time.Time         `json:"at"`
	Until   time.Time         `json:"until"`
	List    []string          `json:"list"`
	Deep    []inner           `json:"deep"`
	Map     map[string]int    `json:"map"`
	Labels  map[string]string `json:"labels"`
	Ratio   float64           `json:"ratio"`
	Nothing *inner            `json:"nothing"`
	Any     any               `json:"any"`
	Took    time.Duration     `json:"took_seconds"`
	hidden  int
	Left    int `json:"-"`
	Bare    bool
}

// JSON has durations in seconds, no zero time, no null list and no number that is not one.
func TestMarshal(t *testing.T) {
	t.Parallel()
	v := everything{inner: inner{Stall: 1500 * time.Millisecond}, At: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC),
		Deep: []inner{{Stall: time.Millisecond, Text: "a\n<b>"}}, Labels: map[string]string{"b": "2", "a": "1"},
		Ratio: math.NaN(), Any: []time.Duration{time.Second}, hidden: 1}
	got, err := Marshal(&v)
	const want = `{"stall_seconds":1.5,"at":"2026-03-01T12:00:00Z","list":[],"deep":[{"stall_seconds":0.001,` +
		`"took_seconds":0,` +
		`"text":"a\n\u003cb\u003e"}],"map":{},"labels":{"a":"1","b":"2"},"ratio":null,"nothing":null,"any":[1],` +
		`"took_seconds":0,"Bare":false}`
	if err != nil || string(got) != want {
		t.Errorf("%v\n%s, want\n%s", err, got, want)
	}
	if !json.Valid(got) {
		t.Error("it is no JSON")
	}
	// Otherwise the output is that of the standard library.
	plain := map[string]any{"x": []any{1, "two", nil, 3.5, true}, "y": struct {
		A int    `json:"a"`
		B []byte `json:"b"`
	}{7, []byte("bytes")}}
	std, err := json.Marshal(plain)
	if err != nil {
		t.Fatal(err)
	}
	if ours, err := Marshal(plain); err != nil || string(ours) != string(std) {
		t.Errorf("%v: %s, the standard library writes %s", err, ours, std)
	}
	if _, err := Marshal(map[string]any{"f": func() {}}); err == nil || !strings.Contains(err.Error(), "func") {
		t.Errorf("a function was encoded: %v", err)
	}
}
