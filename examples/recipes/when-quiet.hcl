# The quiet hours are learned from the application itself; until three days are known, the
# night stands in for them.

database "app" {
  path = "/srv/app/app.db"
}

window "night" {
  cron     = "0 2 * * *"
  duration = "3h"
}

window "quiet" {
  learn {
    signal      = rate(wal.frames_written, "1m")
    quantile    = 0.2
    min_history = "72h"
    fallback    = window.night
  }
}

policy "shrink-when-quiet" {
  when     = wal.bytes > bytes("64MB")
  window   = window.quiet
  cooldown = "30m"
  checkpoint {}
}

policy "keep-from-growing" {
  when     = wal.used_bytes > bytes("32MB") && checkpoint.backlog_frames > 0
  cooldown = "10s"
  checkpoint {
    step "passive" { repeat = 3 }
  }
}
