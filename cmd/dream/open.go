package main

import (
	"context"
	"fmt"
	"net/url"
	"path/filepath"

	"dreamcad/queue"
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
	u, err := url.Parse(address)
	if err != nil {
		return nil, usagef("queue.url is not a URL: %w", err)
	}
	switch u.Scheme {
	case "sqlite":
		return sqliteq.Open(ctx, filepath.FromSlash(u.Path), cfg, sqliteq.Options{})
	default:
		return nil, usagef("queue.url begins with %q; possible are sqlite, redis and rediss", u.Scheme)
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
