package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"dreamcad/queue"
	"dreamcad/queue/redisq"
	"dreamcad/queue/sqliteq"
	"dreamcad/storage/links"
)

// openQueue opens the queue that queue.url names; empty is SQLite in the data folder.
func openQueue(ctx context.Context, a *app) (queue.Queue, error) {
	cfg := queue.DefaultConfig()
	cfg.Logger = a.log
	address := a.config.Queue.URL
	if address == "" {
		path, err := a.config.dataFile("queue.db")
		if err != nil {
			return nil, err
		}
		return sqliteq.Open(ctx, path, cfg, sqliteq.Options{})
	}
	// The Sentinel and Cluster forms name several hosts, which url.Parse refuses.
	scheme, _, _ := strings.Cut(address, "://")
	base, _, _ := strings.Cut(scheme, "+")
	switch base {
	case "sqlite":
		path, err := sqliteq.Path(address)
		if err != nil {
			return nil, usageError{err}
		}
		return sqliteq.Open(ctx, filepath.FromSlash(path), cfg, sqliteq.Options{})
	case "redis", "rediss":
		o, err := redisq.ParseURL(address)
		if err != nil {
			return nil, usageError{err}
		}
		q, err := redisq.Open(ctx, cfg, o)
		if queue.CodeOf(err) == queue.CodeUnavailable {
			return nil, fmt.Errorf("the Redis at %s %s: %w", strings.Join(o.Addrs, ", "), redisq.Refusal(err), err)
		}
		if err != nil {
			return nil, err
		}
		return q, nil
	default:
		return nil, usagef("queue.url begins with %q; possible are sqlite, redis, rediss and their +sentinel and +cluster forms", scheme)
	}
}

// localQueue is the file of an embedded queue; empty: it is on a server.
func (a *app) localQueue() string {
	if a.config.Queue.URL == "" {
		return filepath.Join(a.config.Data, "queue.db")
	}
	if path, err := sqliteq.Path(a.config.Queue.URL); err == nil {
		return filepath.FromSlash(path)
	}
	return ""
}

// localStore is the folder of an embedded storage; empty: it is on a server.
func (a *app) localStore() string {
	if a.config.Storage.URL == "" {
		return filepath.Join(a.config.Data, "results")
	}
	if u, err := url.Parse(a.config.Storage.URL); err == nil && u.Scheme == "file" {
		return filepath.FromSlash(u.Path)
	}
	return ""
}

// absent tells whether nothing is at path; an empty path is not asked for.
func absent(path string) bool {
	_, err := os.Stat(path)
	return path != "" && errors.Is(err, fs.ErrNotExist)
}

// linkKeys are the secrets that sign download links: the configured ones, else
// the data folder holds one.
func linkKeys(a *app) (links.Keys, error) {
	if text := a.config.Storage.LinkKeys; text != "" {
		keys, err := links.ParseKeys(string(text))
		if err != nil {
			return nil, usageError{fmt.Errorf("storage.link_keys: %w", err)}
		}
		return keys, nil
	}
	path, err := a.config.dataFile("link-keys")
	if err != nil {
		return nil, err
	}
	keys, err := links.LoadKeys(path)
	if err != nil {
		return nil, fmt.Errorf("open the link keys: %w", err)
	}
	return keys, nil
}
