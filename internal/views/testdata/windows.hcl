database "app" {
  path = "/srv/app/app.db"
}
window "night" {
  cron     = "30 1 * * *"
  duration = "3h"
  timezone = "Europe/Berlin"
}
window "quiet" {
  learn {
    signal      = rate(wal.frames_written, "5m")
    quantile    = 0.1
    min_history = "72h"
    fallback    = window.night
  }
}
policy "shrink" {
  when = wal.bytes > bytes("64MB") && window.quiet.open
  checkpoint {}
}
