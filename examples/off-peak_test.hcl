# What off-peak.hcl promises, played on a simulated clock:
#
#   sqlwatch test off-peak.hcl

test "a large WAL waits for the night" {
  policy = "shrink-wal-off-peak"
  start  = "2026-03-27T14:00:00+01:00"
  step   = "1m"

  database {
    name = "shop"
    wal  = "300MB"
  }

  during "1h" { write = "5KB" }
  expect {
    phase      = "armed"
    refused_by = "window"
    holds      = wal.bytes > bytes("256MB") && window.night.opens_in == duration("11h")
  }

  during "11h" {}
  expect {
    phase = "cooldown"
    runs  = 1
    holds = wal.bytes == 0 && checkpoint.stall < duration("200ms")
  }

  during "24h" { write = "1KB" }
  expect {
    phase = "inactive"
    runs  = 0
  }
}

# On 2026-03-29 the clocks of Berlin skip from 02:00 to 03:00. The weekend's window,
# 22:00 for 8 h, ends at 06:00 all the same, which is 04:00 UTC.
test "the weekend ends at six in the short night too" {
  policy = "shrink-wal-off-peak"
  start  = "2026-03-29T03:58:00Z"

  database {
    name = "shop"
    wal  = "300MB"
  }

  during "1m50s" {}
  expect {
    phase = "pending"
    holds = window.weekend.open && window.weekend.closes_in == duration("10s")
  }

  during "10s" {}
  expect {
    phase      = "armed"
    refused_by = "window"
    holds      = !window.weekend.open
  }
}

test "a reader keeps the WAL, and is named" {
  policy = "shrink-wal-off-peak"
  start  = "2026-03-27T03:00:00+01:00"

  database {
    name = "shop"
    wal  = "300MB"
  }

  during "4m" {
    write  = "10KB"
    reader = true
  }
  expect {
    phase      = "armed"
    refused_by = "reader"
    runs       = 0
    holds      = wal.bytes > bytes("300MB")
  }

  during "10s" { write = "10KB" }
  expect {
    runs  = 1
    holds = wal.bytes == 0
  }
}

test "a busy writer is left alone for a while" {
  policy = "shrink-wal-off-peak"
  start  = "2026-03-27T03:00:00+01:00"

  database {
    name = "shop"
    wal  = "300MB"
  }

  during "2m" { write_lock = true }
  expect {
    phase = "backoff"
    runs  = 1
  }

  during "20s" { write_lock = true }
  expect {
    refused_by = "backoff"
    runs       = 0
  }

  during "10s" {}
  expect {
    phase = "cooldown"
    holds = wal.bytes == 0
  }
}

test "a filling disk does not wait for the night" {
  policy = "disk-is-filling"
  start  = "2026-03-27T14:00:00+01:00"

  database {
    name = "shop"
    wal  = "100MB"
    disk = "100GB"
  }

  during "30m" { disk_free = "20GB" }
  during "30m" { disk_free = "15GB" }
  expect { runs = 1 }
}

# A day of 2 MB a second, 170 GB of it: the WAL stays below twice the limit, long
# before the night.
test "a busy day does not let the WAL grow" {
  policy = "keep-wal-from-growing"
  start  = "2026-03-27T06:00:00+01:00"

  database { name = "shop" }

  during "12h" { write = "2MB" }
  expect {
    holds = max_over(wal.bytes, "10h") < bytes("512MB") && max_over(wal.bytes, "10h") > bytes("100MB")
  }
}

# A report of six hours keeps the WAL; nothing but its end helps. Then the emergency
# does not wait for the night.
test "after a long report the emergency truncates" {
  policy = "wal-emergency"
  start  = "2026-03-27T08:00:00+01:00"

  database { name = "shop" }

  during "6h" {
    write  = "100KB"
    reader = true
  }
  expect {
    refused_by = "reader"
    runs       = 0
    holds      = wal.bytes > bytes("2GB")
  }

  during "10m" { write = "100KB" }
  expect {
    holds = wal.bytes < bytes("256MB")
  }
}
