package main

import (
	"context"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"

	"dreamcad/queue"
	"dreamcad/queue/redisq"
	"dreamcad/queue/sqliteq"
	"dreamcad/storage"
	"dreamcad/storage/dir"
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
		return redisq.Open(ctx, cfg, o)
	default:
		return nil, usagef("queue.url begins with %q; possible are sqlite, redis, rediss and their +sentinel and +cluster forms", scheme)
	}
}

// openStore opens the storage that storage.url names; empty is a folder in the
// data folder.
func openStore(a *app) (storage.Store, error) {
	address := a.config.Storage.URL
	if address == "" {
		path, err := a.config.dataFile("results")
		if err != nil {
			return nil, err
		}
		return dir.Open(dir.Config{Path: path})
	}
	u, err := url.Parse(address)
	if err != nil {
		return nil, usagef("storage.url is not a URL: %w", err)
	}
	switch u.Scheme {
	case "file":
		return dir.Open(dir.Config{Path: filepath.FromSlash(u.Path)})
	default:
		return nil, usagef("storage.url begins with %q; possible are file and s3", u.Scheme)
	}
}

// linkKeys are the secrets that sign download links; the data folder holds them.
func linkKeys(a *app) (links.Keys, error) {
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
