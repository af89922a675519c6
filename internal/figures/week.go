package figures

// How busy an hour of the week is, of so many.
const (
	NeverSeen = -1
	Quiet     = 0
	Busiest   = 4
)

// Busyness returns how busy an hour of the week is that a learned window knows: NeverSeen
// where there is no value, Quiet, or 1 to Busiest between the level up to which the signal
// counts as quiet and the busiest hour of the week.
func Busyness(value *float64, quiet bool, level, most float64) int {
	switch {
	case value == nil:
		return NeverSeen
	case quiet:
		return Quiet
	case most <= level:
		return 1
	}
	return min(max(int((*value-level)/(most-level)*Busiest), 0), Busiest-1) + 1
}
