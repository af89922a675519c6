# Large WALs are truncated at night, or when the database is quiet by its own
# standards; after a day of waiting, at any time.

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

# The disk does not wait for the night.
policy "disk-is-filling" {
  when     = predict(disk.free_bytes, "1h", "4h") < bytes("1GB") && wal.bytes > bytes("32MB")
  for      = "5m"
  priority = 100
  checkpoint {
    stall_budget = "1s"
  }
}
