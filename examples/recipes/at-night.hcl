# The file is given back at night only. By day PASSIVE, which makes nobody wait, keeps it
# from growing; after a day of waiting it is done at any hour.

database "app" {
  path = "/srv/app/app.db"
}

window "night" {
  cron     = "0 2 * * *"
  duration = "3h"
  timezone = "Europe/Berlin"
}

policy "shrink-at-night" {
  when      = wal.bytes > bytes("256MB")
  until     = wal.bytes < bytes("8MB")
  window    = window.night
  max_defer = "26h"
  cooldown  = "30m"
  checkpoint {}
}

policy "keep-from-growing" {
  when     = wal.used_bytes > bytes("128MB") && checkpoint.backlog_frames > 0
  cooldown = "10s"
  checkpoint {
    step "passive" { repeat = 3 }
  }
}
