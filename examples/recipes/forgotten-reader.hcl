# A reader that forgot to end its transaction keeps the WAL from being emptied; nothing but
# its end helps. It is named.

database "app" {
  path = "/srv/app/app.db"
}

notifier "email" "team" {
  smarthost = "mail.example.com:587"
  from      = "sqlwatch@example.com"
  to        = ["team@example.com"]
}

policy "forgotten-reader" {
  when     = readers.oldest_age > duration("10m") && wal.bytes > bytes("64MB")
  for      = "1m"
  cooldown = "4h"
  notify   = [notifier.email.team]
  message  = "${db.name}: ${readers.oldest_command} (${readers.oldest_pid}) has read for ${human_duration(readers.oldest_age)}"
}
