# sqlwatch test weekly-drill.hcl

test "the first night" {
  policy = "weekly-drill"
  start  = "2026-03-27T14:00:00Z"
  step   = "1m"

  database { replicas = [replica.file.nas] }

  during "12h" {}
  expect {
    refused_by = "window"
    runs       = 0
  }
  during "2h" {}
  expect { runs = 1 }
}
