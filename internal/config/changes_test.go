package config

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func loadText(t *testing.T, files ...string) *Config {
	t.Helper()
	dir := t.TempDir()
	for i, text := range files {
		name := filepath.Join(dir, string(rune('a'+i))+".hcl")
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cfg, diags := Load(dir, func(string) (string, bool) { return "", false })
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	return cfg
}

// A change of layout is no change; every other difference is named, without its value.
func TestChangesNamesWhatDiffers(t *testing.T) {
	t.Parallel()
	const app = "database \"app\" {\n  path = \"/srv/app.db\"\n}\n"
	before := loadText(t, app+`
policy "a" {
  when     = wal.bytes > bytes("1MB") # a comment
  cooldown = "5m"
  checkpoint {
    step "passive" {}
    step "truncate" {}
  }
}
policy "b" {
  when = true
  checkpoint {}
}
locals {
  x = 1
}
`)
	same := loadText(t, `locals { x = 1 }`, `
policy "b" {
  checkpoint {}
  when = true
}
policy "a" {
  cooldown = "5m"
  when = wal.bytes>bytes("1MB")
  checkpoint {
    step "passive"  {}
    step "truncate" {}
  }
}`, app)
	if got := Changes(before, same); len(got) > 0 {
		t.Errorf("the same configuration differs: %q", got)
	}
	other := loadText(t, app+`
policy "a" {
  when     = wal.bytes > bytes("2MB")
  cooldown = "5m"
  for      = "1m"
  checkpoint {
    step "truncate" {}
    step "passive" {}
  }
}
locals {
  x = secret("canary")
}
variable "v" { default = 1 }
window "w" {
  cron     = "0 0 * * *"
  duration = "1h"
}
`)
	want := []string{"- policy b", "+ window w", "~ locals: x", "~ policy a: checkpoint, for, when", "+ variable v"}
	if got := Changes(before, other); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
