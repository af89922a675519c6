# The disk does not wait: what will be full in four hours, if it goes on like this, is
# emptied now, and somebody is told.

database "app" {
  path = "/srv/app/app.db"
}

notifier "slack" "ops" {
  url = env("SLACK_WEBHOOK")
}

policy "disk-is-filling" {
  when     = predict(disk.free_bytes, "1h", "4h") < bytes("1GB") && wal.bytes > bytes("16MB")
  for      = "5m"
  priority = 100
  severity = "critical"
  notify   = [notifier.slack.ops]
  message  = "${db.name}: ${human_bytes(disk.free_bytes)} are left on the disk"
  checkpoint {
    stall_budget = "1s"
  }
}
