package config

import (
	"strings"
	"testing"
)

// TestLoad_F2_bombs loads files below the size limit whose syntax tree is deep although no
// brackets nest. A stack overflow would end the test process.
func TestLoad_F2_bombs(t *testing.T) {
	t.Parallel()
	fill := func(unit, end string) string {
		return "locals {\n  b = 0\n  a = " + strings.Repeat(unit, (maxFileSize-100)/len(unit)/bombScale) + end + "\n}\n"
	}
	for name, src := range map[string]string{
		"sums":        fill("1+", "1"),
		"ands":        fill("true&&", "true"),
		"indexes":     "locals {\n  b = 0\n  a = local" + strings.Repeat("[b]", 300_000/bombScale) + "\n}\n",
		"attributes":  "locals {\n  b = 0\n  a = local" + strings.Repeat(".b", 500_000/bombScale) + "\n}\n",
		"splats":      "locals {\n  b = 0\n  a = local.b" + strings.Repeat(".*", 500_000/bombScale) + "\n}\n",
		"full splats": "locals {\n  b = 0\n  a = local.b" + strings.Repeat("[*]", 300_000/bombScale) + "\n}\n",
		"ifs":         "locals {\n  a = <<E\n" + strings.Repeat("%{if true}", 100_000/bombScale) + "\nE\n}\n",
		"closed ifs": "locals {\n  a = <<E\n" + strings.Repeat("%{if true}", 40_000/bombScale) +
			strings.Repeat("%{endif}", 40_000/bombScale) + "\nE\n}\n",
		"bracketed sums": "locals {\n  a = (" + strings.Repeat("1+\n", 200_000/bombScale) + "1)\n}\n",
		"strings":        "locals {\n  a = " + strings.Repeat(`"," == `, 100_000/bombScale) + "1\n}\n",
		"blocks":         strings.Repeat("a {\n", 200_000/bombScale),
		"quotes":         "a = " + strings.Repeat(`"${"`, 200_000/bombScale),
	} {
		t.Run(name, func(t *testing.T) {
			_, diags := load(t, map[string]string{"a": src})
			if !diags.HasErrors() {
				t.Error("no error")
			}
		})
	}
}

func TestLoad_F2_JSON_bombs(t *testing.T) {
	t.Parallel()
	for name, src := range map[string]string{
		"arrays":  strings.Repeat("[", 500_000/bombScale),
		"objects": strings.Repeat(`{"a":`, 150_000/bombScale),
		"sums":    `{"locals": {"a": "${` + strings.Repeat("1+", 400_000/bombScale) + `1}"}}`,
		"nested":  `{"locals": {"a": "` + strings.Repeat("${(", 150_000/bombScale) + `"}}`,
	} {
		t.Run(name, func(t *testing.T) {
			if _, diags := load(t, map[string]string{"a.hcl.json": src}); !diags.HasErrors() {
				t.Error("no error")
			}
		})
	}
}
