# An application with a week of its own: a batch from two to four at night, office hours,
# evenings. A window that learns finds the hours between them; the night by the clock
# would be the batch.
#
#   sqlwatch test weekly-rhythm.hcl
#
# plays a fortnight of it in a few seconds.

database "shop" {
  path = "/srv/shop/shop.db"
}

# Until the window below has seen three days, this one holds.
window "night" {
  cron     = "0 2 * * *"
  duration = "3h"
}

window "quiet" {
  learn {
    signal      = rate(wal.frames_written, "1m")
    quantile    = 0.20
    min_history = "72h"
    fallback    = window.night
  }
}

policy "shrink-wal-when-quiet" {
  when      = wal.bytes > bytes("64MB")
  for       = "1m"
  window    = window.quiet
  max_defer = "48h"
  cooldown  = "1h"

  checkpoint {
    stall_budget = "200ms"
    step "passive" { repeat = 3 }
    step "truncate" { busy_timeout = "50ms" }
  }
}

# What waits for a quiet hour grows no further meanwhile: PASSIVE makes nobody wait.
policy "keep-wal-from-growing" {
  when     = wal.used_bytes > bytes("64MB") && checkpoint.backlog_frames > 0
  cooldown = "10s"

  checkpoint {
    step "passive" { repeat = 3 }
    on_busy {
      backoff = "10s"
      max     = "1m"
    }
  }
}
