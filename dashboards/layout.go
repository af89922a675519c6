package dashboards

import (
	"encoding/json"
	"fmt"
	"strings"
)

// The widths of Grafana's grid and of panels, in its columns, and heights, in its rows.
const (
	gridWidth   = 24
	rowHeight   = 1
	statWidth   = 4
	statHeight  = 4
	graphWidth  = 12
	graphHeight = 8
)

// object is a JSON object; encoding/json sorts its keys.
type object = map[string]any

// JSON returns the dashboard as Grafana imports it.
func (b Board) JSON() ([]byte, error) {
	var text strings.Builder
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	err := encoder.Encode(object{
		"uid": b.UID, "title": b.Title, "description": b.Description,
		"tags": []string{"sqlite", "sqlwatch"}, "schemaVersion": 38, "version": 1, "editable": true,
		"time": object{"from": "now-6h", "to": "now"}, "refresh": "30s", "timezone": "browser", "graphTooltip": 1,
		"templating":  object{"list": b.variables()},
		"annotations": object{"list": annotations()},
		"links":       b.links(),
		"panels":      b.panels(),
	})
	if err != nil {
		return nil, fmt.Errorf("encode dashboard %s: %w", b.UID, err)
	}
	return []byte(text.String()), nil
}

// panels gives every panel an id and a place: from left to right while there is
// room in the line, then below the highest panel of the line.
func (b Board) panels() []object {
	var all []object
	id, y := 0, 0
	for _, row := range b.Rows {
		id++
		all = append(all, object{"id": id, "type": "row", "title": row.Title, "collapsed": false, "panels": []object{},
			"gridPos": place(0, y, gridWidth, rowHeight)})
		y += rowHeight
		x, tallest := 0, 0
		for _, p := range row.Panels {
			width, height := p.size()
			if x+width > gridWidth {
				x, y, tallest = 0, y+tallest, 0
			}
			id++
			all = append(all, p.object(id, place(x, y, width, height)))
			x, tallest = x+width, max(tallest, height)
		}
		y += tallest
	}
	return all
}

func place(x, y, w, h int) object { return object{"x": x, "y": y, "w": w, "h": h} }

func (p Panel) size() (width, height int) {
	width, height = graphWidth, graphHeight
	switch p.Kind {
	case Stat:
		width, height = statWidth, statHeight
	case Table:
		width, height = gridWidth, graphHeight+2
	}
	if p.Width > 0 {
		width = p.Width
	}
	if p.Height > 0 {
		height = p.Height
	}
	return width, height
}

func (p Panel) object(id int, pos object) object {
	defaults := object{
		"unit":       p.Unit,
		"color":      object{"mode": p.colorMode()},
		"thresholds": thresholds(p.Base, p.Steps),
		"mappings":   mappings(p.Values),
	}
	if p.Min != nil {
		defaults["min"] = *p.Min
	}
	if p.Max != nil {
		defaults["max"] = *p.Max
	}
	if p.Kind == TimeSeries {
		defaults["custom"] = object{"drawStyle": "line", "lineWidth": 1, "fillOpacity": 8, "showPoints": "never",
			"spanNulls":       false,
			"thresholdsStyle": object{"mode": p.thresholdsStyle()}}
	}
	if p.OpensDatabase {
		defaults["links"] = []object{toDatabase("${__field.labels.db}")}
	}
	o := object{
		"id": id, "type": string(p.Kind), "title": p.Title, "description": p.Description, "gridPos": pos,
		"datasource":  datasource(),
		"fieldConfig": object{"defaults": defaults, "overrides": p.overrides()},
		"options":     p.options(),
		"targets":     p.targets(),
	}
	if p.Kind == Table {
		o["transformations"] = p.joinColumns()
	}
	return o
}

func (p Panel) colorMode() string {
	if p.Kind == TimeSeries {
		return "palette-classic"
	}
	return "thresholds"
}

func (p Panel) thresholdsStyle() string {
	if len(p.Steps) > 0 {
		return "dashed"
	}
	return "off"
}

func (p Panel) targets() []object {
	var targets []object
	for i, q := range p.Queries {
		t := object{"refId": refID(i), "expr": promQL(q.Expr), "legendFormat": q.Legend, "datasource": datasource(),
			"editorMode": "code",
			"range":      true, "instant": false, "format": "time_series"}
		switch p.Kind {
		case Stat:
			t["range"], t["instant"] = false, true
		case Table:
			t["range"], t["instant"], t["format"] = false, true, "table"
		}
		targets = append(targets, t)
	}
	return targets
}

func refID(i int) string { return string(rune('A' + i)) }

func (p Panel) options() object {
	switch p.Kind {
	case Stat:
		return object{"colorMode": "background", "graphMode": "none", "justifyMode": "auto", "textMode": "auto",
			"reduceOptions": object{"calcs": []string{"lastNotNull"}, "fields": "", "values": false}}
	case States:
		return object{"showValue": "auto", "mergeValues": true, "rowHeight": 0.9, "legend": object{"displayMode": "list",
			"placement": "bottom", "showLegend": true}}
	case Table:
		return object{"showHeader": true, "cellHeight": "sm"}
	}
	return object{"legend": object{"displayMode": "list", "placement": "bottom", "showLegend": true},
		"tooltip": object{"mode": "multi", "sort": "desc"}}
}

// joinColumns merges the results of a table's queries, so that each database has one row.
func (p Panel) joinColumns() []object {
	hide := object{"Time": true}
	return []object{
		{"id": "merge", "options": object{}},
		{"id": "organize", "options": object{"excludeByName": hide}},
	}
}

// overrides returns the title, unit and colours of each column of a table, and the link in
// the column of names.
func (p Panel) overrides() []object {
	all := []object{}
	for i, c := range p.Columns {
		properties := []object{{"id": "displayName", "value": c.Title}, {"id": "unit", "value": c.Unit}}
		if len(c.Steps) > 0 {
			properties = append(properties, object{"id": "thresholds", "value": thresholds("", c.Steps)})
		}
		if len(c.Values) > 0 {
			properties = append(properties, object{"id": "mappings", "value": mappings(c.Values)})
		}
		if len(c.Steps)+len(c.Values) > 0 {
			properties = append(properties, object{"id": "custom.cellOptions", "value": object{"type": "color-text"}})
		}
		name := "Value #" + refID(i)
		if len(p.Columns) == 1 {
			name = "Value"
		}
		all = append(all, object{"matcher": object{"id": "byName", "options": name}, "properties": properties})
	}
	if p.Kind == Table {
		all = append(all, object{"matcher": object{"id": "byName", "options": "db"},
			"properties": []object{{"id": "links", "value": []object{toDatabase("${__value.text}")}}}})
	}
	return all
}

func thresholds(base string, steps []Step) object {
	if base == "" {
		base = "green"
	}
	list := []object{{"color": base, "value": nil}}
	for _, s := range steps {
		list = append(list, object{"color": s.Color, "value": s.At})
	}
	return object{"mode": "absolute", "steps": list}
}

func mappings(values []Mapping) []object {
	if len(values) == 0 {
		return []object{}
	}
	options := object{}
	for i, m := range values {
		options[fmt.Sprint(m.Value)] = object{"text": m.Text, "color": m.Color, "index": i}
	}
	return []object{{"type": "value", "options": options}}
}
