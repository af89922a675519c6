# Large WALs are truncated at night, or when the database is quiet by its own
# standards; after a day of waiting, at any time. Until then a PASSIVE checkpoint,
# which makes nobody wait, keeps them from growing.

locals {
  limit = bytes("256MB")
}

database "shop" {
  path = "/srv/shop/shop.db"
}

window "night" {
  cron     = "0 2 * * *"
  duration = "3h"
  timezone = "Europe/Berlin"
}

window "weekend" {
  cron     = "0 22 * * 6"
  duration = "8h"
  timezone = "Europe/Berlin"
}

window "quiet" {
  learn {
    signal      = rate(wal.frames_written, "1m")
    quantile    = 0.20
    min_history = "72h"
    fallback    = window.night
  }
}

policy "shrink-wal-off-peak" {
  when      = wal.bytes > local.limit
  for       = "2m"
  until     = wal.bytes < bytes("8MB")
  unless    = readers.oldest_age > duration("5m")
  window    = any_of(window.night, window.weekend, window.quiet)
  max_defer = "26h"
  cooldown  = "30m"

  checkpoint {
    stall_budget = "200ms"
    step "passive" { repeat = 3 }
    step "truncate" { busy_timeout = "100ms" }
  }
}

# What waits for the night must not grow meanwhile. PASSIVE copies the WAL into the
# database, so that the next writer begins it anew within its file.
policy "keep-wal-from-growing" {
  when     = wal.used_bytes > local.limit * 0.5 && checkpoint.backlog_frames > 0
  cooldown = "10s"

  checkpoint {
    step "passive" { repeat = 3 }
    on_busy {
      backoff = "10s"
      max     = "1m"
    }
  }
}

# The emergency: what has grown to twice the limit all the same is truncated at any
# hour, and writers may be stalled for longer.
policy "wal-emergency" {
  when     = wal.bytes > local.limit * 2
  for      = "1m"
  until    = wal.bytes < local.limit
  priority = 50
  cooldown = "5m"
  severity = "critical"

  checkpoint {
    stall_budget = "2s"
    step "passive" { repeat = 3 }
    step "truncate" { busy_timeout = "500ms" }
  }
}

# The disk does not wait for the night.
policy "disk-is-filling" {
  when     = predict(disk.free_bytes, "1h", "4h") < bytes("1GB") && wal.bytes > bytes("32MB")
  for      = "5m"
  priority = 100
  checkpoint {
    stall_budget = "1s"
  }
}
