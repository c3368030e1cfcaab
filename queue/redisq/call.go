package redisq

import (
	"context"
	"errors"

	"github.com/redis/go-redis/v9"
)

// run executes a script; the one key routes to the slot.
func (q *Queue) run(ctx context.Context, s *redis.Script, args ...any) *redis.Cmd {
	cmd := redis.NewCmd(ctx, append([]any{"evalsha", s.Hash(), 1, q.slot[0]}, args...)...)
	err := q.calls.do(ctx, cmd)
	var refusal redis.Error
	switch {
	case errors.Is(err, errGaveUp): // the answer may still be written to cmd
		cmd = redis.NewCmd(ctx)
		cmd.SetErr(ctx.Err())
	case err != nil && !errors.Is(err, redis.Nil) && errors.As(err, &refusal):
		// No such script, read only, loading: on its own the client does what
		// the refusal asks for.
		return s.Run(ctx, q.c, q.slot, args...)
	}
	return cmd
}

// list runs a script that returns a list of texts (numbers are turned into texts).
func (q *Queue) list(ctx context.Context, doing string, s *redis.Script, args ...any) ([]string, error) {
	v, err := q.run(ctx, s, args...).Slice()
	if errors.Is(err, redis.Nil) {
		return nil, nil
	}
	if err != nil {
		return nil, wrap(doing, err)
	}
	out := make([]string, len(v))
	for i, x := range v {
		out[i] = text(x)
	}
	return out, nil
}

// pipeline runs a script for each non-nil args in one round trip. Calls that
// found the server's script cache empty are sent again with the script's text.
func (q *Queue) pipeline(ctx context.Context, s *redis.Script, args [][]any) ([]*redis.Cmd, error) {
	cmds := make([]*redis.Cmd, len(args))
	send := func(eval func(context.Context, redis.Scripter, []string, ...any) *redis.Cmd, want func(i int) bool) error {
		p := q.c.Pipeline()
		for i, a := range args {
			if a != nil && want(i) {
				cmds[i] = eval(ctx, p, q.slot, a...)
			}
		}
		if p.Len() == 0 {
			return nil
		}
		_, err := p.Exec(ctx)
		return err
	}
	if err := send(s.EvalSha, func(int) bool { return true }); err != nil && !anyAnswer(cmds) && !redis.HasErrorPrefix(err, "NOSCRIPT") {
		return nil, wrap("pipeline", err)
	}
	err := send(s.Eval, func(i int) bool { return cmds[i].Err() != nil && redis.HasErrorPrefix(cmds[i].Err(), "NOSCRIPT") })
	if err != nil && !anyAnswer(cmds) {
		return nil, wrap("pipeline", err)
	}
	return cmds, nil
}

func anyAnswer(cmds []*redis.Cmd) bool {
	for _, c := range cmds {
		if c != nil && c.Err() == nil {
			return true
		}
	}
	return false
}
