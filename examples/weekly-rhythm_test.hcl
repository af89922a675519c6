# What weekly-rhythm.hcl promises, played on a simulated clock:
#
#   sqlwatch test weekly-rhythm.hcl

# Eight days of the application, from a Monday on; then a week in which the window is
# open throughout the quiet hours, but for a quarter of an hour after what was busy, and
# never in the busy ones.
test "after eight days it knows the week" {
  policy = "shrink-wal-when-quiet"
  start  = "2026-03-02T00:00:00Z"

  database { name = "shop" }

  repeat "5" {
    during "2h" { write = "1KB" }
    during "2h" { write = "2MB" }
    during "5h" { write = "1KB" }
    during "9h" { write = "400KB" }
    during "5h" { write = "50KB" }
    during "1h" { write = "1KB" }
  }
  repeat "2" {
    during "2h" { write = "1KB" }
    during "2h" { write = "2MB" }
    during "14h" { write = "1KB" }
    during "5h" { write = "50KB" }
    during "1h" { write = "1KB" }
  }
  during "2h" { write = "1KB" }
  during "2h" { write = "2MB" }
  during "5h" { write = "1KB" }
  during "9h" { write = "400KB" }
  during "5h" { write = "50KB" }
  during "1h" { write = "1KB" }

  # From here on it is held to it: Tuesday to Friday …
  repeat "4" {
    during "2h" {
      write  = "1KB"
      always = window.quiet.open
    }
    during "2h" {
      write = "2MB"
      never = window.quiet.open
    }
    during "15m" { write = "1KB" }
    during "4h45m" {
      write  = "1KB"
      always = window.quiet.open
    }
    during "9h" {
      write = "400KB"
      never = window.quiet.open
    }
    during "5h" {
      write = "50KB"
      never = window.quiet.open
    }
    during "15m" { write = "1KB" }
    during "45m" {
      write  = "1KB"
      always = window.quiet.open
    }
  }

  # … and the weekend.
  repeat "2" {
    during "2h" {
      write  = "1KB"
      always = window.quiet.open
    }
    during "2h" {
      write = "2MB"
      never = window.quiet.open
    }
    during "15m" { write = "1KB" }
    during "13h45m" {
      write  = "1KB"
      always = window.quiet.open
    }
    during "5h" {
      write = "50KB"
      never = window.quiet.open
    }
    during "15m" { write = "1KB" }
    during "45m" {
      write  = "1KB"
      always = window.quiet.open
    }
  }
  expect { holds = max_over(wal.bytes, "7d") < bytes("128MB") }
}

# The night by the clock is the batch: it is hit for three nights, and not in the fourth.
test "after three days it avoids the batch" {
  policy = "shrink-wal-when-quiet"
  start  = "2026-03-02T00:00:00Z"

  database {
    name = "shop"
    wal  = "100MB"
  }

  repeat "3" {
    during "1h59m" { write = "1KB" }
    expect {
      runs       = 0
      refused_by = "window"
    }
    during "1m" { write = "1KB" }
    during "1h30m" { write = "2MB" }
    expect { runs = 2 } # in the middle of the batch
    during "30m" { write = "2MB" }
    during "5h" { write = "1KB" }
    expect { runs = 1 }
    during "9h" { write = "400KB" }
    during "5h" { write = "50KB" }
    during "59m" { write = "1KB" }
    expect { runs = 0 }
    during "1m" { write = "1KB" }
  }

  during "2h" { write = "1KB" }
  expect { runs = 1 }
  during "2h" {
    write = "2MB"
    never = window.quiet.open
  }
  expect {
    runs       = 0
    refused_by = "window"
  }
  during "5h" { write = "1KB" }
  expect {
    runs  = 1
    holds = wal.bytes < bytes("20MB")
  }
}
