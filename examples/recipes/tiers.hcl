# One policy for many tenants, with limits by tier.

locals {
  tiers = {
    gold     = { limit = "32MB", budget = "50ms", priority = 10 }
    standard = { limit = "256MB", budget = "200ms", priority = 0 }
  }
}

database "paying" {
  glob   = "/srv/gold/*/data.db"
  name   = "gold-${path_element(db.path, -2)}"
  labels = { tier = "gold" }
}

database "others" {
  glob   = "/srv/tenants/*/data.db"
  name   = "tenant-${path_element(db.path, -2)}"
  labels = { tier = "standard" }
}

policy "shrink" {
  for_each = local.tiers
  labels   = { tier = each.key }
  when     = wal.bytes > bytes(each.value.limit)
  for      = "30s"
  priority = each.value.priority
  cooldown = "5m"
  checkpoint {
    stall_budget = each.value.budget
  }
}
