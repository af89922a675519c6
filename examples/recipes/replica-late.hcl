# Somebody is told when commits are not safe elsewhere within half a minute, and once more
# when they are again.

database "app" {
  path         = "/srv/app/app.db"
  replicate_to = [replica.file.nas]
}

replica "file" "nas" {
  dir = "/mnt/nas/sqlite/${db.name}"
}

notifier "slack" "ops" {
  url = env("SLACK_WEBHOOK")
}

policy "replica-late" {
  when     = replica.lag > duration("30s")
  for      = "1m"
  severity = "critical"
  notify   = [notifier.slack.ops]
  message  = "${db.name}: the replica is ${human_duration(replica.lag)} behind"
}
