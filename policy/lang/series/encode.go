package series

import (
	"fmt"
	"math"
	"time"
)

const historyVersion = 1

// Encoded is the encoding of a Store: values by the name of their column, NaN as null. Stall
// belongs to the Store's owner.
type Encoded struct {
	Version  int                    `json:"version"`
	Names    []string               `json:"names"`
	Stall    *float64               `json:"stall,omitempty"`
	Tiers    [][]pointJSON          `json:"tiers"`
	Profiles map[string]profileJSON `json:"profiles,omitempty"`
}

type pointJSON struct {
	At     time.Time  `json:"t"`
	Values []*float64 `json:"v"`
}

// profileJSON is the encoding of a profile.
type profileJSON struct {
	Began  time.Time  `json:"began"`
	Values []*float64 `json:"v"` // by quarter of an hour from Monday 00:00
	Weeks  []int      `json:"n,omitempty"`
}

// Encode returns what must be saved for the store to survive a restart.
func (h *Store) Encode() Encoded {
	j := Encoded{Version: historyVersion, Names: append([]string{}, h.names...)}
	for _, t := range h.tiers {
		points := []pointJSON{}
		for i, at := range t.at {
			q := pointJSON{At: time.Unix(0, at).UTC(), Values: make([]*float64, len(h.names))}
			for k := range h.names {
				q.Values[k] = storable(t.columns[k][i])
			}
			points = append(points, q)
		}
		j.Tiers = append(j.Tiers, points)
	}
	for name, p := range h.profiles {
		if p.began.IsZero() {
			continue
		}
		if j.Profiles == nil {
			j.Profiles = map[string]profileJSON{}
		}
		q := profileJSON{Began: p.began, Weeks: p.Weeks()}
		for i := range p.values {
			q.Values = append(q.Values, storable(p.at(i)))
		}
		j.Profiles[name] = q
	}
	return j
}

// Decode restores what Encode returned; it drops samples that are out of order.
func (h *Store) Decode(j Encoded) error {
	if j.Version != historyVersion || len(j.Tiers) != len(h.tiers) {
		return fmt.Errorf("decode history: version %d with %d tiers was written by another release", j.Version, len(j.Tiers))
	}
	*h = Store{names: append([]string{}, j.Names...), profiles: map[string]*Profile{}}
	row := make([]float64, len(j.Names))
	for i, points := range j.Tiers {
		for _, q := range points {
			if len(q.Values) != len(row) {
				return fmt.Errorf("decode history: a sample has %d values for %d names", len(q.Values), len(row))
			}
			for k, v := range q.Values {
				row[k] = known(v)
			}
			h.tiers[i].add(q.At.UnixNano(), row, i, nil)
		}
	}
	for name, q := range j.Profiles {
		if len(q.Values) != BucketsOfWeek {
			return fmt.Errorf("decode history: the profile %q has %d values, a week has %d", name, len(q.Values), BucketsOfWeek)
		}
		p := &Profile{began: q.Began}
		for i, v := range q.Values {
			if v != nil {
				p.values[i], p.seen[i] = *v, 1
				if len(q.Weeks) == BucketsOfWeek {
					p.seen[i] = uint8(min(max(q.Weeks[i], 1), 255))
				}
			}
		}
		h.profiles[name] = p
	}
	for i := range h.tiers {
		for _, coarser := range h.tiers[i+1:] {
			h.tiers[i].dropped = h.tiers[i].dropped || len(coarser.at) > 0 && (len(h.tiers[i].at) == 0 ||
				coarser.at[0] < h.tiers[i].at[0])
		}
	}
	return nil
}

// storable returns a value for the encoding, or nil if it is not known.
func storable(v float64) *float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return nil
	}
	return &v
}

func known(v *float64) float64 {
	if v == nil {
		return unknown
	}
	return *v
}
