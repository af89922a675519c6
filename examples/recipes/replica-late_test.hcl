# sqlwatch test replica-late.hcl

test "a replica that stays behind" {
  policy = "replica-late"
  start  = "2026-03-27T14:00:00Z"

  database { replicas = [replica.file.nas] }

  during "5m" { replica_lag = "5s" }
  expect { runs = 0 }

  during "50s" { replica_lag = "2m" }
  expect {
    phase = "pending"
    runs  = 0
  }
  during "30s" { replica_lag = "2m" }
  expect { runs = 1 }

  during "50m" { replica_lag = "1h" }
  expect {
    refused_by = "cooldown"
    runs       = 0
  }
}
