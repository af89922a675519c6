# sqlwatch test after-a-deploy.hcl

test "it holds off after the start" {
  policy = "shrink-wal"
  start  = "2026-03-27T14:00:00Z"

  database {
    wal      = "100MB"
    replicas = [replica.file.nas]
  }

  during "4m" {}
  expect {
    refused_by = "hold_off"
    runs       = 0
  }
  during "2m" {}
  expect {
    runs  = 1
    holds = wal.bytes == 0
  }
}
