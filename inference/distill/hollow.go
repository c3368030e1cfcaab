package distill

// pit is the hollow of an open vessel.
type pit struct {
	Wall, Floor float64
}
