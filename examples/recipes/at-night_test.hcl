# sqlwatch test at-night.hcl

test "it waits for two o'clock" {
  policy = "shrink-at-night"
  start  = "2026-03-27T20:00:00+01:00"
  step   = "1m"

  database { wal = "300MB" }

  during "5h" {}
  expect {
    refused_by = "window"
    runs       = 0
    holds      = window.night.opens_in == duration("1h")
  }
  during "1h" {}
  expect {
    runs  = 1
    holds = wal.bytes == 0
  }
}

test "a fortnight" {
  policy = "shrink-at-night"
  start  = "2026-03-23T00:00:00Z"
  step   = "1m"
  always = wal.bytes < bytes("512MB")

  during "336h" { write = "300KB" }
  expect { holds = wal.bytes < bytes("512MB") }
}
