package monitor

import (
	"context"
	"strings"
	"time"

	"dreamcad/queue"
)

// servedPrefix begins the records that say when a consumer was last served.
const servedPrefix = "ops/served/"

// ConsumerLife is how long a consumer of events is expected after its bot was
// seen last.
const ConsumerLife = 24 * time.Hour

// Serve notes that this process serves the consumer.
func Serve(ctx context.Context, s queue.State, consumer string, at time.Time) error {
	_, err := s.Put(ctx, servedPrefix+consumer, []byte(at.UTC().Format(time.RFC3339)), queue.AnyVersion, ConsumerLife)
	return err
}

// Served lists the consumers that are expected.
func Served(ctx context.Context, s queue.State) (map[string]bool, error) {
	keys, err := s.Keys(ctx, servedPrefix, "")
	out := make(map[string]bool, len(keys))
	for _, k := range keys {
		out[strings.TrimPrefix(k, servedPrefix)] = true
	}
	return out, err
}

// LastServed tells when the consumer was last served; the zero time: longer ago
// than ConsumerLife.
func LastServed(ctx context.Context, s queue.State, consumer string) (time.Time, error) {
	r, err := s.Get(ctx, servedPrefix+consumer)
	if queue.CodeOf(err) == queue.CodeNotFound {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, err
	}
	return time.Parse(time.RFC3339, string(r.Value))
}

// Unserve forgets when the consumer was served.
func Unserve(ctx context.Context, s queue.State, consumer string) error {
	return s.Delete(ctx, servedPrefix+consumer, queue.AnyVersion)
}
