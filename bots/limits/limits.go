// Package limits decides who may do how much: quotas per user, server and
// overall, a cooldown, lists of administrators, and words that are refused.
// Quotas are only formed here; the queue reserves them atomically with the
// submit and gives them back when a job fails or is cancelled before its start.
package limits

import (
	"slices"
	"time"

	"dreamcad/queue"
)

// Config are the limits. Zero means none, for every number.
type Config struct {
	UserDay   int           `yaml:"user_day"`   // jobs a user and day
	SpaceDay  int           `yaml:"space_day"`  // jobs a server or workspace and day
	TotalDay  int           `yaml:"total_day"`  // jobs a day in all
	UserLive  int           `yaml:"user_live"`  // jobs of a user that wait or run at a time
	SpaceLive int           `yaml:"space_live"` // the same of a server or workspace
	TotalLive int           `yaml:"total_live"` // the same in all
	Cooldown  time.Duration `yaml:"cooldown"`   // between two jobs of a user
	// Admins, Ingest: "platform:id" of users, or "role:id" of Discord roles.
	Admins []string `yaml:"admins"`
	Ingest []string `yaml:"ingest"` // who may send prompt files, besides admins
	// BlockFile names the list of refused words; see Words.
	BlockFile string `yaml:"block_file"`
}

// Admin tells whether a user, or one of their roles, is on the list of administrators.
func (c *Config) Admin(user string, roles []string) bool { return listed(c.Admins, user, roles) }

// MayIngest tells whether a user may send prompt files.
func (c *Config) MayIngest(user string, roles []string) bool {
	return c.Admin(user, roles) || listed(c.Ingest, user, roles)
}

func listed(list []string, user string, roles []string) bool {
	if slices.Contains(list, user) {
		return true
	}
	for _, r := range roles {
		if slices.Contains(list, "role:"+r) {
			return true
		}
	}
	return false
}

// Scope says whose limit it is.
type Scope string

// The scopes.
const (
	User     Scope = "user"
	Space    Scope = "space"
	Total    Scope = "total"
	Cooldown Scope = "cooldown"
)

// Limit is a quota and what to say about it.
type Limit struct {
	queue.Quota
	Scope Scope
	Until time.Time // when it is renewed; zero for a cooldown and for live jobs
}

// Unlimited as a user's own daily limit means that none holds.
const Unlimited = -1

// Day returns the day's limits of a user in a space at the given time, most
// specific first. own is the user's own daily limit: nil takes the configured
// one. space may be empty.
func (c *Config) Day(user, space string, own *int, now time.Time) []Limit {
	day := now.UTC().Truncate(24 * time.Hour)
	end := day.Add(24 * time.Hour)
	stamp := day.Format(time.DateOnly)
	var out []Limit
	add := func(s Scope, name string, limit int) {
		out = append(out, Limit{
			Quota: queue.Quota{Key: "day/" + stamp + "/" + string(s) + "/" + name, Cost: 1, Limit: int64(limit), Life: 25 * time.Hour},
			Scope: s, Until: end,
		})
	}
	switch {
	case own != nil && *own != Unlimited:
		add(User, user, *own)
	case own == nil && c.UserDay > 0:
		add(User, user, c.UserDay)
	}
	if space != "" && c.SpaceDay > 0 {
		add(Space, space, c.SpaceDay)
	}
	if c.TotalDay > 0 {
		add(Total, "", c.TotalDay)
	}
	return out
}

// liveLife is how long a counter of live jobs may live: one that a crash of the
// queue's server left too high is right again afterwards.
const liveLife = 7 * 24 * time.Hour

// Live returns the limits on jobs that wait or run at a time, most specific first.
func (c *Config) Live(user, space string) []Limit {
	var out []Limit
	for _, l := range []struct {
		scope Scope
		name  string
		limit int
	}{{User, user, c.UserLive}, {Space, space, c.SpaceLive}, {Total, "", c.TotalLive}} {
		if l.limit > 0 && (l.scope != Space || l.name != "") {
			out = append(out, Limit{
				Quota: queue.Quota{Key: "live/" + string(l.scope) + "/" + l.name, Cost: 1, Limit: int64(l.limit), Life: liveLife, Live: true},
				Scope: l.scope,
			})
		}
	}
	return out
}

// Submit returns all limits that a new job has to pass: those on live jobs,
// the cooldown, which is a quota of one with a short life, and the day's.
func (c *Config) Submit(user, space string, own *int, now time.Time) []Limit {
	out := c.Live(user, space)
	if c.Cooldown > 0 {
		out = append(out, Limit{
			Quota: queue.Quota{Key: "cooldown/" + user, Cost: 1, Limit: 1, Life: c.Cooldown},
			Scope: Cooldown,
		})
	}
	return append(out, c.Day(user, space, own, now)...)
}
