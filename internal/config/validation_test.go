package config

import (
	"strings"
	"testing"
)

// The validations of a variable hold wherever its value comes from.
func TestValidation(t *testing.T) {
	t.Parallel()
	const limit = `
variable "limit" {
  type    = number
  default = DEFAULT
  validation {
    condition     = var.limit >= local.least
    error_message = "limit is less than ${human_bytes(local.least)}."
  }
  validation {
    condition     = var.limit < bytes("1GB")
    error_message = "limit is too large."
  }
}
locals {
  least = bytes("1MB")
}
`
	for _, test := range []struct{ name, value, from, want string }{
		{"good", `bytes("5MB")`, "", ""},
		{"too small", `5`, "", "a.hcl:6:21"},
		{"message", `5`, "", "limit is less than 1.0 MB."},
		{"too large", `bytes("5GB")`, "", "limit is too large."},
		{"of the environment", `bytes("5MB")`, "7", "SQLWATCH_VAR_limit"},
		{"good of the environment", `5`, "2000000", ""},
	} {
		dir := t.TempDir()
		write(t, dir+"/a.hcl", strings.Replace(limit, "DEFAULT", test.value, 1))
		cfg, diags := Load(dir, func(name string) (string, bool) {
			return test.from, test.from != "" && name == "SQLWATCH_VAR_limit"
		})
		got := show(cfg, diags)
		if diags.HasErrors() != (test.want != "") || !strings.Contains(got, test.want) {
			t.Errorf("%s: %s, want %q", test.name, got, test.want)
		}
	}
	for condition, want := range map[string]string{
		"true":                   "does not read var.x",
		"var.y > 1":              "does not read var.x",
		"var.x":                  "is true or false",
		"var.x > null":           "",
		"var.x == env(\"NOPE\")": "NOPE",
	} {
		cfg, diags := load(t, map[string]string{"a": "variable \"y\" {\n default = 1\n}\nvariable \"x\" {\n default = 1\n" +
			" validation {\n condition = " + condition + "\n error_message = \"bad\"\n }\n}"})
		if got := show(cfg, diags); !diags.HasErrors() || !strings.Contains(got, want) ||
			!strings.Contains(got, "a.hcl:7:") {
			t.Errorf("%s: %s, want %q", condition, got, want)
		}
	}
	// The message must not show the value of a secret variable.
	cfg, diags := load(t, map[string]string{"a": "variable \"k\" {\n default = secret(\"" + canary + "\")\n" +
		" validation {\n condition = var.k == \"\"\n error_message = \"bad: ${var.k}\"\n }\n}"})
	if got := show(cfg, diags); !diags.HasErrors() || strings.Contains(got, canary) {
		t.Errorf("%s", got)
	}
}

// A changed for_each is reported as its effect: policies that come and go, and those whose value
// changes.
func TestChangesOfInstances(t *testing.T) {
	t.Parallel()
	text := func(each string) string {
		return "database \"a\" {\n path = \"/a\"\n}\npolicy \"p\" {\n for_each = " + each +
			"\n when = wal.bytes > each.value\n checkpoint {}\n}\n"
	}
	before := loadText(t, text(`{ a = bytes("1MB"), b = bytes("2MB"), c = bytes("3MB") }`))
	after := loadText(t, text(`{ b = bytes("2MB"), c = bytes("4MB"), d = bytes("5MB") }`))
	got := strings.Join(Changes(before, after), "\n")
	if want := "+ policy p-d\n- policy p-a\n~ policy p-c: each.value\n~ policy p (p-b, p-c, p-d): for_each"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
