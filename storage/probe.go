package storage

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
)

// Probe writes, reads back and deletes a small object below "probe/", and creates
// another one twice. It tells whether the second create was refused, which is what
// publishing results once stands on.
func Probe(ctx context.Context, s Store) (conditional bool, err error) {
	id := rand.Text()
	plain, cond := "probe/"+id+".txt", "probe/"+id+".json"
	defer func() {
		if derr := s.Delete(context.WithoutCancel(ctx), plain, cond); err == nil && derr != nil {
			err = fmt.Errorf("storage does not let us delete: %w", derr)
		}
	}()
	want := []byte("dreamcad " + id)
	if err := s.Put(ctx, plain, bytes.NewReader(want), int64(len(want))); err != nil {
		return false, fmt.Errorf("storage does not let us write: %w", err)
	}
	got, err := ReadAll(ctx, s, plain, 1024)
	if err != nil {
		return false, fmt.Errorf("storage does not let us read: %w", err)
	}
	if !bytes.Equal(got, want) {
		return false, errors.New("storage gave back other bytes than were written")
	}
	if err := s.Create(ctx, cond, []byte("1")); err != nil {
		return false, fmt.Errorf("storage does not let us create: %w", err)
	}
	switch err := s.Create(ctx, cond, []byte("2")); {
	case err == nil:
		return false, nil
	case errors.Is(err, ErrExists):
		return true, nil
	default:
		return false, fmt.Errorf("storage does not let us create: %w", err)
	}
}
