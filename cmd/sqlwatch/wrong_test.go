package main

import (
	"fmt"
	"strings"
	"testing"
)

// wrong is a configuration with a mistake that begins at «.
type wrong struct{ text, want string }

// within puts a policy's lines into a configuration that is otherwise good.
func within(lines string) string {
	return "database \"app\" {\n  path   = \"/srv/app.db\"\n  labels = { tier = \"gold\" }\n}\n" +
		"replica \"file\" \"local\" {\n  dir = \"/var/backups\"\n}\nwindow \"night\" {\n  cron     = \"0 2 * * *\"\n" +
		"  duration = \"3h\"\n}\nwindow \"noon\" {\n  cron     = \"0 12 * * *\"\n  duration = \"1h\"\n}\n" +
		"policy \"p\" {\n" + lines + "\n}\n"
}

func wrongs() (all []wrong) {
	add := func(text, want string) { all = append(all, wrong{text, want}) }
	when := func(x, want string) { add(within("  when = «"+x+"\n  checkpoint {}"), want) }
	// Durations, in every place.
	for _, attr := range []string{"for", "cooldown", "max_defer"} {
		for value, want := range map[string]string{`"soon"`: "not a duration", `"-5m"`: "must be from",
			`true`:            "ot a duration",
			`"999999999999h"`: "not a duration", `"9999999999d"`: "too long", `[1]`: "s needed", `1e30`: "", `{}`: "s needed",
			`"1ns"`: "", `"5 m"`: "not a duration", `""`: "not a duration", `"1h" + 1`: "", `foo`: ""} {
			if attr == "for" && value == `"1ns"` {
				continue // accepted, and has no effect
			}
			add(within("  when   = true\n  window = window.night\n  "+attr+" = «"+value+"\n  checkpoint {}"), want)
		}
	}
	for _, attr := range []string{"stall_budget", "step \"truncate\" {\n busy_timeout", "on_busy {\n backoff",
		"on_busy {\n max"} {
		end := ""
		if strings.Contains(attr, "{") {
			end = "\n }"
		}
		for value, want := range map[string]string{`"soon"`: "not a duration", `"-5m"`: "must be from",
			`"999h"`: "must be from",
			`true`:   "ot a duration", `[]`: "s needed", `"5m" * 2`: ""} {
			add(within("  when = true\n  checkpoint {\n "+attr+" = «"+value+end+"\n  }"), want)
		}
	}
	// Words, numbers, strings and lists.
	for attr, values := range map[string]map[string]string{
		"mode": {`"enfroce"`: `"enforce"`, `5`: "cannot be", `"dry-run"`: `"dry_run"`,
			`secret("canary-1")`: "out of place"},
		"severity": {`"criticl"`: `"critical"`, `"error"`: "cannot be", `true`: "cannot be",
			`secret("canary-2")`: "out of place"},
		"priority": {`1.5`: "whole number", `"high"`: "whole number", `100000`: "from -1000 to 1000", `[1]`: "whole number"},
		"notify": {`[notifier.webhook.ops]`: "here is no notifier", `["ops"]`: "eferences",
			`"ops"`: "must be a list", `[replica.file.local]`: "eferences"},
		"databases": {`[]`: "names no database", `["*", "!app"]`: `exclude = ["app"]`, `"app"`: "list of text",
			`["[a"]`: "not a pattern", `[""]`: "not a pattern", `[secret("canary-3")]`: "list of text", `[1, {}]`: ""},
		"exclude": {`["*"]`: "would watch no database", `["[a"]`: "not a pattern", `5`: "list of text",
			`"app"`: "list of text"},
		"labels": {`{ teir = "gold" }`: `"tier"`, `["gold"]`: "object of text", `"gold"`: "object of text",
			`{ tier = secret("canary-4") }`: "without secrets"},
		"window": {`[window.night]`: "any_of", `null`: "would never act", `window.nihgt`: `"night"`, `5`: "must be a window",
			`"night"`: "must be a window", `true`: "must be a window", `window.night.open`: "must be a window",
			`all_of(window.night, window.noon)`: "not open once", `any_of()`: "", `any_of("night")`: "",
			`all_of(window.night, wal.bytes)`: ""},
		"unless": {`true`: "always true", `null`: "has no value", `5`: "must be true or false", `wal.bytes`: "it is bytes",
			`wal.byts > 0`: `"bytes"`, `secret("canary-5")`: ""},
		"until": {`null`: "has no value", `"x"`: "must be true or false", `wal.bytes < duration("1m")`: "do not match"},
		"message": {`"${wal.byts}"`: `"bytes"`, `"${human_bytes(replica.lag)}"`: "cannot write", `"${"`: "",
			`"${db.labels.teir}"`: `"tier"`},
		"cooldwn": {`"1m"`: `"cooldown"`},
		"whn":     {`true`: `"whn"`},
	} {
		for value, want := range values {
			mark := attr + " = «" + value
			if attr == "cooldwn" || attr == "whn" {
				mark = "«" + attr + " = " + value
			}
			add(within("  when = wal.bytes > bytes(\"1MB\")\n  "+mark+"\n  checkpoint {}"), want)
		}
	}
	conditions(when)
	schedules(add)
	blocks(add)
	idle(add)
	return all
}

// idle adds configurations that say something but would never do it.
func idle(add func(text, want string)) {
	const app = "database \"app\" {\n  path   = \"/srv/app.db\"\n  labels = { tier = \"gold\" }\n}\n"
	const replica = "replica \"file\" \"local\" {\n  dir = \"/var/backups/${db.name}\"\n}\n"
	policy := func(lines, want string) { add(app+"policy \"p\" {\n"+lines+"\n}\n", want) }
	large := "  when = wal.bytes > bytes(\"64MB\")\n"
	for lines, want := range map[string]string{
		"  databases = «[\"ap\"]":                              "none of the databases",
		"  databases = «[\"tenant-*\"]":                        "none of the databases",
		"  exclude = «[\"a*\"]":                                "none of the databases",
		"  labels = «{ tier = \"glod\" }":                      `"gold"`,
		"  databases = [\"app\"]\n  exclude = [\"app\"]":       "",
		"  labels = { tier = \"gold\" }\n exclude = [\"app\"]": "",
	} {
		if !strings.Contains(lines, "«") {
			lines = strings.Replace(lines, "exclude = ", "exclude = «", 1)
			lines = strings.Replace(lines, "  databases = [\"app\"]\n", "", 1)
			lines = strings.Replace(lines, "  labels = { tier = \"gold\" }\n", "", 1)
		}
		policy(large+lines+"\n  checkpoint {}", want)
	}
	for _, kind := range []string{"snapshot", "sync", "verify"} {
		policy("  when = true\n  «"+kind+" {}", "has a replica")
		add(app+replica+"database \"b\" {\n  path = \"/b\"\n  replicate_to = [replica.file.local]\n}\npolicy \"p\" {\n"+
			"  databases = [\"app\"]\n  when = true\n  «"+kind+" {}\n}\n", "has a replica")
	}
	for x, want := range map[string]string{
		`replica.lag > duration("1m")`:                         "has a replica",
		`replica.pending_bytes > 0 && wal.frames > 0`:          "has a replica",
		`!replica.healthy`:                                     "has a replica",
		`db.name == "ap"`:                                      `"app"`,
		`db.labels.tier == "glod" && wal.bytes > bytes("1MB")`: `"gold"`,
		`db.name != "app" && db.name == "app"`:                 "always false",
		`locks.writer_held && !locks.writer_held`:              "always false",
		`locks.writer_held && !(locks.writer_held || false)`:   "always false",
		`wal.bytes == 5 && wal.bytes == 6`:                     "always false",
		`wal.bytes > 5 && wal.bytes == 5`:                      "always false",
		`max_over(wal.bytes, "1h") < 0`:                        "always false",
		`max_over(disk.free_ratio, "1h") < -0.5`:               "always false",
		`avg_over(wal.bytes, "1h") > bytes("2MB") && avg_over(wal.bytes, "1h") < bytes("1MB")`: "always false",
		`wal.bytes < bytes("100kB")`:                   "not worth a TRUNCATE",
		`wal.bytes > 5 && wal.bytes <= bytes("64KiB")`: "not worth a TRUNCATE",
		`wal.bytes > bytes("1MB") && false`:            "always false",
		`(wal.bytes < 0 || false) && true`:             "always false",
		`null && wal.bytes > bytes("1MB")`:             "",
		`wal.bytes > bytes(local.limit)`:               "not an amount",
		`wal.age > duration(var.age)`:                  "not a duration",
	} {
		policy("  when = «"+x+"\n  checkpoint {}\n}\nlocals {\n  limit = \"many\"\n}\nvariable \"age\" {\n  default = "+
			"\"old\"", want)
	}
	add(app+replica+"database \"b\" {\n  path = \"/b\"\n  replicate_to = [replica.file.local]\n}\npolicy \"p\" {\n"+
		"  databases = [\"app\"]\n  when = «replica[\"file.local\"].lag > duration(\"1m\")\n  checkpoint {}\n}\n",
		"never known")
	policy(large+"  unless = «wal.bytes >= 0\n  checkpoint {}", "always true")
	policy(large+"  unless = «db.name == \"app\"\n  checkpoint {}", "always true")
	for lines, want := range map[string]string{
		"  «tune \"x\" {\n goal = wal.bytes < 5\n start = 5\n  }":                              "reads tune.x",
		"  «tune \"stall\" {\n goal = true\n  }":                                               "always true",
		"  «tune \"stall\" {\n goal = 1 > 2\n  }":                                              "always false",
		"  «tune \"stall\" {\n goal = wal.bytes < 5\n start = 0.1\n min = 0.1\n max = 0.1\n }": "could not move",
	} {
		policy(large+lines+"\n  checkpoint {}", want)
	}
	policy(large+"  checkpoint {\n step \"passive\" {}\n  }\n  «tune \"stall\" {\n goal = wal.bytes < 5\n  }",
		"no stall budget")
	for dir, want := range map[string]string{`""`: "dir is empty", `"backups"`: "Relative path",
		`"${db.name}"`: "Relative path",
		`"./x"`:        "Relative path"} {
		add("replica \"file\" \"x\" {\n  dir = «"+dir+"\n}\n", want)
	}
	const learned = "window \"all\" {\n  cron = \"0 * * * *\"\n  duration = \"1h\"\n}\n«window \"w\" {\n  learn {\n" +
		"    signal = wal.frames\n    except = [window.all]\n  }\n}\n"
	add(app+learned+"policy \"p\" {\n  when = true\n  window = window.w\n  checkpoint {}\n}\n", "never open")
}

// doubtful returns configurations that are accepted with a warning: what stands at « has no
// effect, or probably not the intended one.
func doubtful() (all []wrong) {
	const app = "database \"app\" {\n  path = \"/srv/app.db\"\n}\n"
	add := func(text, want string) { all = append(all, wrong{text, want}) }
	policy := func(lines, want string) { add(app+"policy \"p\" {\n"+lines+"\n}\n", want) }
	large := "  when = wal.bytes > bytes(\"64MB\")\n"
	add("«replica \"file\" \"local\" {\n  dir = \"/var/backups\"\n}\n"+app, "nothing is stored there")
	add("«window \"w\" {\n  cron = \"0 2 * * *\"\n  duration = \"1h\"\n}\n"+app, "no policy keeps to it")
	add("«notifier \"exec\" \"x\" {\n  command = [\"/bin/true\"]\n}\n"+app, "it is told nothing")
	for lines, want := range map[string]string{
		"replicate_to = «[]": "not replicated", "labels = «{}": "empty labels", "exclude = «[]": "empty exclude"} {
		add("database \"app\" {\n  path = \"/srv/app.db\"\n  "+lines+"\n}\n", want)
	}
	for lines, want := range map[string]string{
		"  databases = «[\"app\", \"ap\"]":           `"app"`,
		"  databases = «[\"app\", \"app\"]":          "listed twice",
		"  exclude = «[\"bpp\"]":                     `"app"`,
		"  «exclude = []":                            "selects nothing",
		"  «labels = {}":                             "selects nothing",
		"  message = «\"full\"":                      "goes with notify",
		"  max_defer = «\"1h\"":                      "without a window",
		"  unless = «replica.lag > duration(\"2m\")": "has a replica",
		"  unless = «wal.frames < 0":                 "always false",
		"  unless = «1 > 2":                          "always false",
		"  until = «wal.bytes < 0":                   "again and again",
		"  until = «wal.bytes >= 0":                  "always holds",
		"  until = «wal.bytes > bytes(\"1MB\")":      "has not begun",
	} {
		policy(large+lines+"\n  checkpoint {}", want)
	}
	for lines, want := range map[string]string{
		"    stall_budget = «\"1s\"\n    step \"passive\" {}": "holds nobody up",
		"    step \"passive\" { «busy_timeout = \"1s\" }":     "waits for nobody",
		"    step \"truncate\" { «busy_timeout = \"5s\" }":    "ends the wait",
		"    step \"truncate\" {}\n    «step \"passive\" {}":  "gentle to",
	} {
		policy(large+"  checkpoint {\n"+lines+"\n  }", want)
	}
	policy("  when = «wal.bytes >= 0\n  checkpoint {}", "always holds")
	policy("  when = «wal.bytes < 5 || wal.bytes > 4\n  checkpoint {}", "")
	policy("  when = wal.bytes > «5000000\n  checkpoint {}", `bytes("5.0 MB")`)
	policy(large+"  priority = «5\n  notify = [notifier.exec.x]\n}\nnotifier \"exec\" \"x\" {\n  command = "+
		"[\"/bin/true\"]", "wait for nobody")
	two := func(first, second, want string) {
		add(app+"policy \"p\" {\n  when = wal.bytes > bytes(\"64MB\")\n"+first+"  checkpoint {}\n}\npolicy \"q\" {\n"+second+
			"  checkpoint {}\n}\n", want)
	}
	two("", "  when = «wal.bytes > bytes(\"64MB\")\n", "stands before it")
	two("", "  when = «wal.bytes > bytes(\"128MB\")\n  severity = \"critical\"\n", "\"p\" does so first")
	two("  priority = 5\n", "  when = «wal.bytes > bytes(\"64MB\") && locks.busy > 5\n", "higher priority")
	add(app+"policy \"ordinary\" {\n  when = «wal.bytes > bytes(\"64MB\")\n  for = \"2m\"\n  checkpoint {}\n}\n"+
		"policy \"emergency\" {\n  when = wal.bytes > bytes(\"32MB\")\n  for = \"1m\"\n  priority = 50\n  checkpoint {}\n}\n",
		"\"emergency\" does so first")
	return all
}

func TestDoubtfulConfigurations(t *testing.T) {
	t.Parallel()
	for i, w := range doubtful() {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			before, _, marked := strings.Cut(w.text, "«")
			if !marked {
				t.Fatalf("no mark in %s", w.text)
			}
			path := configFile(t, strings.Replace(w.text, "«", "", 1))
			_, stderr, code := command(t, registerCheck, "check", path)
			line := 1 + strings.Count(before, "\n")
			if code != exitOK || !strings.Contains(stderr, "warning: ") || !strings.Contains(stderr, w.want) ||
				!strings.Contains(stderr, fmt.Sprintf("%s:%d:", path, line)) || !strings.Contains(stderr, "^") {
				t.Errorf("exit %d for\n%s\n%s\nwant a warning on line %d with %q", code, w.text, stderr, line, w.want)
			}
		})
	}
}

// conditions adds mistakes in when.
func conditions(when func(x, want string)) {
	for x, want := range map[string]string{
		`false`: "always false", `1 > 2`: "always false", `null`: "has no value", `!true`: "always false",
		`wal.bytes < 0`: "no wal.bytes is like that", `disk.free_ratio > 1`: "no disk.free_ratio",
		`wal.bytes < bytes("0MB")`:                             "",
		`wal.bytes > bytes("2GB") && wal.bytes < bytes("1GB")`: "always false",
		`wal.bytes == -1`:                                      "always false",
		`0 > wal.frames`:                                       "always false",
		`!(wal.bytes >= 0)`:                                    "always false",
		`replica.lag > duration("1h") && replica.lag <= duration("1m")`:  "always false",
		`wal.bytes > bytes("1MB") && (locks.busy < 0 || wal.frames < 0)`: "always false",
		`disk.free_ratio >= percent("150%")`:                             "always false",
		`wall.bytes > 0`:                                                 `"wal"`, `wal.byts > 0`: `"bytes"`, `wal > 0`: "",
		`replicas.lag > 5`:        `"replica"`,
		`wal.bytes > byte("1MB")`: `"bytes"`, `replica["file.locl"].lag > duration("1m")`: `"file.local"`,
		`db.labels.teir == "gold"`: `"tier"`, `window.nite.open`: `night`, `window.night.opn`: `"open"`,
		`var.limit > 1`: "no var.limit",
		`local.x`:       "no local.x", `tune.x > 1`: "no tune.x",
		`db.name > 5`: "number is needed", `wal.bytes`: "it is bytes", `locks.writer_held > 1`: "number is needed",
		`"true"`:            "must be true",
		`wal.bytes.foo > 1`: "nothing can follow", `wal.bytes-5 > 0`: "wal.bytes - 5",
		`wal.bytes > replica.lag`:    "left side is bytes",
		`wal.bytes > duration("1m")`: "do not match", `wal.bytes + replica.lag > bytes("1MB")`: "do not match",
		`max(wal.bytes, replica.lag) > 0`: "One part is bytes", `max_over(wal.bytes, "5m") > replica.lag`: "do not match",
		`wal.bytes > bytes("1 apple")`: "not an amount", `wal.bytes > bytes("MB")`: "not an amount",
		`replica.lag > duration("soon")`:   "not a duration",
		`disk.free_ratio < percent("few")`: "not a percentage",
		`rate(wal.frames, "0s") > 1`:       "between 1s and 10d", `rate(wal.frames, "11d") > 1`: "between 1s and 10d",
		`rate(wal.frames) > 1`: "needs 2",
		`rate("1m") > 1`:       "needs 2", `quantile_over(wal.bytes, "1h", 2) > 1`: "from 0 to 1",
		`quantile_over(wal.bytes, "1h") > 1`: "needs 3",
		`predict(disk.free_bytes, "1h") < 5`: "needs 3", `max_over(db.name, "1h") > 1`: "needs a number",
		`max_over(window.night.opens_in, "1h") > 1`: "not kept", `max_over(replica["file.local"].lag, "1h") > 1`: "not kept",
		`max_over(max_over(rate(wal.frames, "1m"), "1h"), "1h") > 1`: "deeply nested",
		`wal.bytes / 0 > bytes("1MB")`:                               "divided by zero",
		`format("%99999999d", 1) == ""`:                              "widths above", `regex("[", "a") == ""`: "",
		`path_element("/a") == ""`: "", `1e99999999 > wal.bytes`: "3 digits", `wal.bytes > 1 +`: "", `wal.bytes >`: "",

		`wal.bytes > "x" - 1`: "", `secret("canary-6") > 5`: "", `env("SQLWATCH_NO_SUCH") == "x"`: "",
		`file("/no/such/file") == ""`: "",
		`[for a in [1]: a]`:           "",
		`wal.bytes = 5`:               "",
		`wal.bytes & 1`:               "",
		`quiet(db.name)`:              "",
		`any_of(window.night)`:        "must be true",
		strings.Repeat("(", 250) + "true" + strings.Repeat(")", 250): "200 levels",
		"true" + strings.Repeat(" && true", 1100):                    "1000 operators",
	} {
		when(x, want)
	}
}

// schedules adds mistakes in windows.
func schedules(add func(text, want string)) {
	const window = "window \"w\" {\n"
	for cron, want := range map[string]string{`"0 0 30 2 *"`: "never open", `"TZ="`: "timezone attribute",
		`"CRON_TZ=UTC 0 0 * * *"`: "timezone attribute", `"@every 5m"`: "five fields", `"0 0 0 * * *"`: "five fields",
		`"* *"`: "five fields",
		`""`:    "five fields", `"61 0 * * *"`: "five fields", `"0 25 * * *"`: "five fields", `"0 0 0 * *"`: "five fields",
		`"0 0 * 13 *"`: "five fields",
		`"0 0 * * 8"`:  "five fields", `"a b c d e"`: "five fields", `5`: "five fields", `"0 0 31 4 *"`: "never open",
		`secret("canary-7")`: "out of place"} {
		add(window+"  cron     = «"+cron+"\n  duration = \"1h\"\n}\n", want)
	}
	for _, value := range []string{`"0s"`, `"8d"`, `"-1h"`, `"30s"`, `"long"`, `[]`} {
		add(window+"  cron     = \"0 0 * * *\"\n  duration = «"+value+"\n}\n", "")
	}
	for _, value := range []string{`"Europe/Berlln"`, `"CEST5"`, `"../etc/passwd"`} {
		add(window+"  cron     = \"0 0 * * *\"\n  duration = \"1h\"\n  timezone = «"+value+"\n}\n", "no time zone")
	}
	for attr, want := range map[string]string{"signal = «db.name": "needs a number",
		"signal = «window.w.opens_in":                 "not kept",
		"signal = wal.frames\n quantile = «2":         "between 0 and 1",
		"signal = wal.frames\n quantile = «\"low\"":   "must be a number",
		"signal = wal.frames\n min_history = «\"1s\"": "must be from",
		"signal = wal.frames\n fallback = «window.v":  "here is no window.v",
		"signal = wal.frames\n except = «window.v":    "must be a list",
		"signal = wal.frames\n timezone = «\"Mars\"":  "no time zone",
		"signal = wal.frames\n quantil = 1":           `"quantile"`} {
		if !strings.Contains(attr, "«") {
			attr = strings.Replace(attr, "quantil", "«quantil", 1)
		}
		add(window+"  learn {\n "+attr+"\n  }\n}\n", want)
	}
	add("«window \"w\" {\n  cron = \"0 0 * * *\"\n}\n", "needs cron and duration")
	add("«window \"w\" {\n  cron = \"0 0 * * *\"\n duration = \"1h\"\n  learn {\n signal = wal.frames\n  }\n}\n", "either")
	add("window \"w\" {\n  learn {\n signal = wal.frames\n fallback = window.v\n }\n}\n«window \"w\" {\n  cron = \"0 0 "+
		"* * *\"\n  "+
		"duration = \"1h\"\n}\nwindow \"v\" {\n  cron = \"0 0 * * *\"\n  duration = \"1h\"\n}\n", "already defined")
}

// blocks adds mistakes in which blocks there are.
func blocks(add func(text, want string)) {
	for lines, want := range map[string]string{
		"  when = true\n  «checkpont {}":                                           "checkpoint",
		"  when = true\n  checkpoint {\n    step «\"full\" {}\n  }":                "passive",
		"  when = true\n  checkpoint {\n    step «\"trunctae\" {}\n  }":            `"truncate"`,
		"  when = true\n  checkpoint {\n    step \"passive\" { repeat = «0 }\n  }": "from 1 to 100",
		"  when = true\n  checkpoint {}\n  «snapshot {}":                           "one action",
		"  when = true\n  checkpoint {}\n  «checkpoint {}":                         "one checkpoint",
		"  when = true\n  until = «false\n  sync {}": "goes with a " +
			"checkpoint",
		"  when = true\n  sync {\n    «now = true\n  }":                                               "",
		"  when = true\n  «tune \"x\" {\n    goal = true\n  }\n  checkpoint {}":                       "needs start",
		"  when = true\n  «tune \"x\" {\n    goal = true\n start = 5\n max = 1\n  }\n  checkpoint {}": "must hold",
		"  when = true\n  tune \"x\" {\n    goal = wal.bytes > 0\n start = 5\n mode = «\"aply\"\n  }\n  " +
			"checkpoint {}": `"apply"`,
		"  when = true\n  tune \"x\" {\n    goal = «wal.bytes\n start = 5\n  }\n  checkpoint {}": "true or false",
		"  when = wal.bytes > bytes(\"64MB\")\n  unless = «wal.bytes > bytes(\"1MB\")\n  checkpoint {}": "holds whenever " +
			"when does",
		"  when = true\n  checkpoint {\n  «on_busy {\n    backoff = \"1h\"\n max = \"1m\"\n  }\n  }": "less than backoff",
	} {
		add(within(lines), want)
	}
	add("«policy \"p\" {\n  when = true\n}\n", "does nothing")
	add("«policy \"p\" {\n  when   = true\n  notify = []\n}\n", "does nothing")
	add("«policy \"p\" {\n  checkpoint {}\n}\n", "when")
	add("policy «\"a b\" {\n  when = true\n  checkpoint {}\n}\n", "consists")
	add("policy \"p\" {\n  when = true\n  checkpoint {}\n}\n«policy \"p\" {\n  when = true\n  checkpoint {}\n}\n",
		"already defined")
	add("«policy {\n  when = true\n}\n", "")
	add("«polcy \"p\" {}\n", "policy")
	add("engine {\n  mode = «\"off\"\n}\n", "cannot be")
	add("engine {}\n«engine {}\n", "one engine")
	add("server {\n  listen = «\"localhost\"\n}\n", "host:port")
	add("server {\n  admin = «\"tcp://x\"\n}\n", "unix://")
	add("server {\n  «lisen = \":1\"\n}\n", `"listen"`)
	add("replica \"s3\" \"x\" {\n  bucket = \"b\"\n  prefix = db.name\n  credentials {\n    access_key = \"AKIA\"\n"+
		"    secret_key = «\"canary\\n\"\n  }\n}\n", "has a line break")
	add("notifier \"webhook\" \"x\" {\n  url = «null\n}\n", "needs its url")
	add("notifier \"webhook\" \"x\" {\n  url = «\"\"\n}\n", "needs its url")
	add("«database \"a\" {\n  path = \"\"\n}\n", "empty")
	add("database \"a\" {\n  path         = \"/a.db\"\n  replicate_to = [«replica.file.x]\n}\n", "here is no replica")
	add("«variable \"v\" {\n  type    = number\n  default = \"x\"\n}\n", "")
	add("«locals {\n", "")
	add("x = \"${\n«", "")
}

// Each of more than two hundred wrong configurations is refused with its file, line, column and
// the text there, with a suggestion where one is possible, and without repeating a secret.
func TestWrongConfigurations(t *testing.T) {
	t.Parallel()
	all := wrongs()
	if len(all) < 200 {
		t.Fatalf("only %d wrong configurations", len(all))
	}
	for i, w := range all {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			before, _, marked := strings.Cut(w.text, "«")
			if !marked {
				t.Fatalf("no mark in %s", w.text)
			}
			line := 1 + strings.Count(before, "\n")
			path := configFile(t, strings.Replace(w.text, "«", "", 1))
			stdout, stderr, code := command(t, registerCheck, "check", path)
			switch {
			case code != exitFindings || !strings.Contains(stderr, "error: "):
				t.Errorf("exit %d for\n%s\n%s%s", code, w.text, stdout, stderr)
			case !strings.Contains(stderr, fmt.Sprintf("%s:%d:", path, line)) ||
				!strings.Contains(stderr, "^") && !strings.Contains(stderr, "(secret)"):
				t.Errorf("line %d is not quoted for\n%s\n%s", line, w.text, stderr)
			case !strings.Contains(stderr, w.want):
				t.Errorf("%q is missing for\n%s\n%s", w.want, w.text, stderr)
			}
			if strings.Contains(stdout+stderr, "canary") {
				t.Errorf("a secret is shown:\n%s%s", stdout, stderr)
			}
		})
	}
}
