package again

// Self is this very program, even where another was put in its place.
func Self() (string, error) { return "/proc/self/exe", nil }
