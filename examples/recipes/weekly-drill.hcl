# A backup that nobody has restored is a hope. Once a week, at night, the replica is
# restored, checked and thrown away; one that was never checked is overdue.

database "app" {
  path         = "/srv/app/app.db"
  replicate_to = [replica.file.nas]
}

replica "file" "nas" {
  dir = "/mnt/nas/sqlite/${db.name}"
}

window "night" {
  cron     = "0 3 * * *"
  duration = "3h"
}

policy "weekly-drill" {
  when     = coalesce(replica.last_verified_age, duration("365d")) > duration("7d")
  window   = window.night
  cooldown = "24h"
  verify {}
}
