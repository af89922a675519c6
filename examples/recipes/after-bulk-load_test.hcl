# sqlwatch test after-bulk-load.hcl

test "a load of three gigabytes" {
  policy = "snapshot-after-bulk-load"
  start  = "2026-03-27T14:00:00Z"

  database { replicas = [replica.file.nas] }

  during "10m" { write = "5MB" }
  expect { runs = 0 }

  during "10m" { write = "1KB" }
  expect { runs = 1 }

  during "6h" { write = "1KB" }
  expect { runs = 0 }
}
