package dashboards

// What all dashboards have: variables, links to each other, annotations.

func datasource() object { return object{"type": "prometheus", "uid": "${datasource}"} }

func (b Board) variables() []object {
	return []object{
		{"name": "datasource", "label": "Prometheus", "description": "The Prometheus that scrapes sqlwatch.",
			"type": "datasource", "query": "prometheus", "hide": 0, "refresh": 1},
		choice("job", "Job", "The scrape job.", `label_values(sqlite_up, job)`, true),
		choice("instance", "Host", "The sqlwatch that answers: one a host.", `label_values(sqlite_up{job=~"$job"}, instance)`,
			true),
		choice("db", "Database", "The database's name in the configuration.",
			`label_values(sqlite_up{job=~"$job",instance=~"$instance"}, db)`, !b.OneDatabase),
	}
}

func choice(name, label, description, query string, many bool) object {
	v := object{
		"name": name, "label": label, "description": description, "type": "query", "datasource": datasource(),
		"query": object{"query": query, "refId": name}, "definition": query,
		"refresh": 2, "sort": 1, "hide": 0, "multi": many, "includeAll": many,
	}
	if many {
		v["allValue"], v["current"] = ".*", object{"text": []string{"All"}, "value": []string{"$__all"}}
	}
	return v
}

// links returns links to the other dashboards, which keep the time range and the variables.
func (b Board) links() []object {
	var all []object
	for _, other := range []struct{ uid, title string }{
		{"sqlwatch-fleet", "Fleet"}, {"sqlwatch-database", "Database"}, {"sqlwatch-replication", "Replication"},
		{"sqlwatch-policy", "Policies"},
	} {
		if other.uid != b.UID {
			all = append(all, object{"title": other.title, "type": "link", "url": "/d/" + other.uid, "icon": "dashboard",
				"includeVars": true, "keepTime": true, "targetBlank": false})
		}
	}
	return all
}

func toDatabase(db string) object {
	return object{"title": "Open the database", "targetBlank": false,
		"url": "/d/sqlwatch-database?${datasource:queryparam}&${job:queryparam}&${instance:queryparam}&var-db=" + db +
			"&${__url_time_range}"}
}

func annotations() []object {
	return []object{
		annotation("Checkpoints", "blue", "{{db}}: {{mode}} checkpoint",
			`sum by (db, mode) (increase(sqlwatch_checkpoints_total{@db}[$__rate_interval])) > 0`),
		annotation("Policy actions", "purple", "{{db}}: {{policy}} began to {{action}}",
			`sum by (db, policy, action) (increase(sqlwatch_policy_actions_total{@db}[$__rate_interval])) > 0`),
		annotation("Alerts", "red", "{{alertname}}: {{db}}",
			`max by (alertname, db) (ALERTS{alertname=~"Sqlwatch.+",alertstate="firing",@instance})`),
	}
}

func annotation(name, color, title, expr string) object {
	return object{"name": name, "enable": true, "hide": false, "iconColor": color, "datasource": datasource(),
		"expr": promQL(expr), "step": "60s", "titleFormat": title, "useValueForTime": false}
}
