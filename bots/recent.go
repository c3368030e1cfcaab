package bots

// Recent remembers the last few thousand ids of interactions, in two
// generations. The zero value is ready; it is not safe for concurrent use.
type Recent struct{ young, old map[string]bool }

const recentSize = 4096

// Add reports whether the id is new.
func (r *Recent) Add(id string) bool {
	if r.young[id] || r.old[id] {
		return false
	}
	if r.young == nil || len(r.young) >= recentSize {
		r.old, r.young = r.young, make(map[string]bool, recentSize)
	}
	r.young[id] = true
	return true
}
