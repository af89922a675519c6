package policy

import (
	"strings"
	"testing"
)

func TestCheckBlocks(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, src, want string }{
		{"F1_unknown_attribute", "policy \"p\" {\n when = true\n cooldwn = \"1m\"\n sync {}\n}", `"cooldown"`},
		{"F1_unknown_block", "policy \"p\" {\n when = true\n checkpont {}\n}", "checkpoint"},
		{"F1_unknown_step", "policy \"p\" {\n when = true\n checkpoint {\n step \"full\" {}\n }\n}", "passive"},
		{"no action", "policy \"p\" {\n when = true\n}", "does nothing"},
		{"two actions", "policy \"p\" {\n when = true\n sync {}\n verify {}\n}", "one action"},
		{"duplicate policy", "policy \"p\" {\n when = true\n sync {}\n}\npolicy \"p\" {\n when = true\n sync {}\n}",
			"already defined at test.hcl:1"},
		{"reserved name", "policy \"operator\" {\n when = true\n sync {}\n}", "Reserved name"},
		{"bad name", "policy \"a b\" {\n when = true\n sync {}\n}", "A name consists"},
		{"unknown notifier", "policy \"p\" {\n when = true\n notify = [notifier.webhook.opps]\n}", `"notifier.webhook.ops"`},
		{"F8_zero_cooldown", "policy \"p\" {\n when = true\n cooldown = \"0s\"\n sync {}\n}", "must be from"},
		{"F8_one_nanosecond", "policy \"p\" {\n when = true\n cooldown = \"1ns\"\n sync {}\n}", "must be from"},
		{"F8_negative", "policy \"p\" {\n when = true\n for = \"-5m\"\n sync {}\n}", "must be from"},
		{"F8_overflow", "policy \"p\" {\n when = true\n for = \"999999999999h\"\n sync {}\n}", "not a duration"},
		{"F8_overflow_days", "policy \"p\" {\n when = true\n for = \"9999999999d\"\n sync {}\n}", "too long"},
		{"F8_backoff_above_max", "policy \"p\" {\n when = true\n checkpoint {\n on_busy {\n backoff = \"1h\"\n max = " +
			"\"1m\"\n }\n }\n}", "less than backoff"},
		{"until without checkpoint", "policy \"p\" {\n when = true\n until = false\n sync {}\n}", "goes with a checkpoint"},
		{"window that never opens", "window \"w\" {\n cron = \"0 0 30 2 *\"\n duration = \"1h\"\n}", "never open"},
		{"bare TZ=", "window \"w\" {\n cron = \"TZ=\"\n duration = \"1h\"\n}", "timezone attribute"},
		{"CRON_TZ", "window \"w\" {\n cron = \"CRON_TZ=UTC 0 0 * * *\"\n duration = \"1h\"\n}", "timezone attribute"},
		{"@every", "window \"w\" {\n cron = \"@every 5m\"\n duration = \"1h\"\n}", "five fields"},
		{"six fields", "window \"w\" {\n cron = \"0 0 0 * * *\"\n duration = \"1h\"\n}", "five fields"},
		{"unknown zone", "window \"w\" {\n cron = \"0 0 * * *\"\n duration = \"1h\"\n timezone = \"Europe/Berlln\"\n}",
			"no time zone"},
		{"fallback to itself", "window \"w\" {\n learn {\n signal = wal.frames\n fallback = window.w\n }\n}",
			"cron schedule"},
		{"learning from a window", "window \"w\" {\n learn {\n signal = window.v.opens_in\n }\n}",
			"past of window is not kept"},
		{"learning from text", "window \"w\" {\n learn {\n signal = db.name\n }\n}", "needs a number"},
		{"unknown fallback", "window \"w\" {\n learn {\n signal = wal.frames\n fallback = window.v\n }\n}",
			"There is no window.v"},
		{"tune without start", "policy \"p\" {\n when = true\n tune \"x\" {\n goal = true\n }\n sync {}\n}", "needs start"},
		{"tune out of range", "policy \"p\" {\n when = true\n tune \"x\" {\n goal = true\n start = 5\n max = 1\n }\n sync " +
			"{}\n}", "must hold"},
		{"when null", "policy \"p\" {\n when = null\n sync {}\n}", "no value"},
		{"when false", "policy \"p\" {\n when = 1 > 2\n sync {}\n}", "always false"},
		{"unless true", "policy \"p\" {\n when = true\n unless = !false\n sync {}\n}", "always true"},
		{"unless null", "policy \"p\" {\n when = true\n unless = null\n sync {}\n}", "no value"},
		{"window list", "window \"w\" {\n cron = \"0 0 * * *\"\n duration = \"1h\"\n}\npolicy \"p\" {\n when = true\n " +
			"window = [window.w]\n sync {}\n}", "any_of"},
		{"window null", "policy \"p\" {\n when = true\n window = null\n sync {}\n}", "never act"},
		{"no databases", "policy \"p\" {\n when = true\n databases = []\n sync {}\n}", "names no database"},
		{"negated pattern", "policy \"p\" {\n when = true\n databases = [\"*\", \"!app\"]\n sync {}\n}",
			"exclude = [\"app\"]"},
		{"everything excluded", "policy \"p\" {\n when = true\n exclude = [\"*\"]\n sync {}\n}", "no database"},
		{"unknown label", "policy \"p\" {\n when = true\n labels = { teir = \"gold\" }\n sync {}\n}", "tier"},
		{"two engines", "engine {}\nengine {}", "may be one engine"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			_, diags := parse(test.src)
			if !diags.HasErrors() {
				t.Fatal("no error")
			}
			for _, d := range diags {
				if strings.Contains(d.Summary+" "+d.Detail, test.want) {
					return
				}
			}
			t.Errorf("got %v, want %q", diags, test.want)
		})
	}
}
