// Command dream is the whole of dreamcad: one-shot generation, the service,
// batch ingest and the operator's tools, one file a subcommand.
//
// Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"

	"dreamcad/ops/supervise"
	"dreamcad/queue"
)

// Exit codes of every subcommand.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitInterrupted = 130
)

// cli is the command line: one field a subcommand, in the order of the help.
type cli struct {
	Config string `help:"Configuration file (YAML)." type:"path" placeholder:"FILE" env:"DREAM_CONFIG"`

	Up         upCmd         `cmd:"" group:"Start" help:"Run everything in one program: queue, storage, worker and web console."`
	Views      viewsCmd      `cmd:"" group:"Make" help:"Make four consistent views of a prompt."`
	Mesh       meshCmd       `cmd:"" group:"Make" help:"Make a textured mesh of a prompt."`
	Ingest     ingestCmd     `cmd:"" group:"Batch" help:"Queue every prompt of files."`
	Batch      batchCmd      `cmd:"" group:"Batch" help:"List, watch, pause, cancel, retry batches; write their results."`
	Bot        botCmd        `cmd:"" group:"Service" help:"Serve Discord, Slack and the web console; check their set-up."`
	Worker     workerCmd     `cmd:"" group:"Service" help:"Make jobs of the queue on one device."`
	Jobs       jobsCmd       `cmd:"" group:"Operate" help:"List, show, cancel, retry, requeue, unpublish jobs."`
	Queue      queueCmd      `cmd:"" group:"Operate" help:"Show, pause, resume, drain the queue; dead and quarantined jobs."`
	Storage    storageCmd    `cmd:"" group:"Operate" help:"Check, clean and measure the storage of results."`
	Doctor     doctorCmd     `cmd:"" group:"Operate" help:"Check this machine and its set-up."`
	Logs       logsCmd       `cmd:"" group:"Operate" help:"Print the log lines about a job."`
	Monitor    monitorCmd    `cmd:"" group:"Operate" help:"Show the sensors of the service, live and over time."`
	Ops        opsCmd        `cmd:"" group:"Operate" help:"List the rules of the watch; silence alerts; send a test alert."`
	Bench      benchCmd      `cmd:"" group:"Operate" help:"Measure quality and speed."`
	Init       initCmd       `cmd:"" group:"Set up" help:"Write a configuration file that shows every setting."`
	ConfigCmd  configCmd     `cmd:"" name:"config" group:"Set up" help:"Check or show the effective configuration."`
	Models     modelsCmd     `cmd:"" group:"Set up" help:"Pull, list, check, convert and remove models."`
	Version    versionCmd    `cmd:"" group:"Set up" help:"Print version, build and device support."`
	Completion completionCmd `cmd:"" group:"Set up" help:"Print a shell completion script (bash, zsh or fish)."`
}

// app is what every subcommand gets: streams, settings and a context that ends
// at the first interrupt.
type app struct {
	ctx    context.Context
	stdout io.Writer
	stderr io.Writer
	stdin  io.Reader
	config *loadedConfig
	log    *slog.Logger
	parser *kong.Kong
	child  *supervise.Child // nil: no other process looks after this one
}

// usageError is a mistake in what was asked for: exit code 2.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// usagef returns an error that ends the program with the code for wrong usage.
func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

func main() {
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run is main with its streams as arguments and its exit code as result.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	var c cli
	parser, err := newParser(&c, stdout, stderr)
	if err != nil {
		fmt.Fprintln(stderr, "dream:", err)
		return exitFailed
	}
	return parseAndRun(&c, parser, args, stdin, stdout, stderr)
}

// newParser makes what reads the command line into c.
func newParser(c *cli, stdout, stderr io.Writer) (*kong.Kong, error) {
	parser, err := kong.New(c,
		kong.Name("dream"),
		kong.Description("Text to four consistent views to a textured 3D mesh, in chat, in a browser or here.\n\n"+
			"Examples:\n"+
			"  dream up                                   web console on http://localhost:7860\n"+
			"  dream views \"a ceramic coffee mug\"         four PNG views in a folder\n"+
			"  dream mesh \"a ceramic coffee mug\" -o mug   OBJ, GLB and a turntable\n\n"+
			"Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted. "+
			"With --json, times are UTC, durations seconds and sizes bytes."),
		kong.Writers(stdout, stderr),
		kong.UsageOnError(),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true}),
		kong.Vars{"version": version()},
		kong.Exit(func(code int) { panic(exitCode(code)) }),
	)
	if err != nil {
		return nil, err
	}
	addExamples(parser.Model.Node, "")
	return parser, nil
}

// exitCode carries kong's wish to exit (after --help) out of the parser.
type exitCode int

func parseAndRun(c *cli, parser *kong.Kong, args []string, stdin io.Reader, stdout, stderr io.Writer) (code int) {
	defer func() {
		if r := recover(); r != nil {
			wish, ok := r.(exitCode)
			if !ok {
				panic(r)
			}
			code = int(wish)
		}
	}()
	if len(args) == 0 {
		args = []string{"--help"}
	}
	command, err := parser.Parse(args)
	if err != nil {
		fmt.Fprintf(stderr, "dream: %v (see %s --help)\n", err, commandOf(err))
		return exitUsage
	}
	config, err := loadConfig(c.Config, os.Environ())
	if err != nil {
		fmt.Fprintln(stderr, "dream:", err)
		return exitUsage
	}
	c.Up.override(config)
	child, err := supervise.Attach()
	if err != nil {
		fmt.Fprintln(stderr, "dream:", err)
		return exitFailed
	}
	var tail io.Writer
	switch {
	case child != nil:
		tail = child.Log
	case config.Worker.Supervise && (command.Command() == "worker" || command.Command() == "up"):
		return superviseSelf(config, command.Command() == "worker", stderr)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	logger, closeLog, err := newLogger(config, stderr, tail)
	if err != nil {
		fmt.Fprintln(stderr, "dream:", err)
		return exitFailed
	}
	defer closeLog()
	a := &app{ctx: ctx, stdout: stdout, stderr: stderr, stdin: stdin, config: config, log: logger, parser: parser, child: child}
	err = command.Run(a)
	return report(stderr, ctx, err)
}

// commandOf is the command that a mistake on the command line belongs to.
func commandOf(err error) string {
	var e *kong.ParseError
	if errors.As(err, &e) && e.Context != nil {
		if c := e.Context.Selected(); c != nil {
			return c.FullPath()
		}
	}
	return "dream"
}

// report prints a failed command's one sentence and chooses the exit code.
func report(stderr io.Writer, ctx context.Context, err error) int {
	var usage usageError
	switch {
	case err == nil:
		return exitDone
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		fmt.Fprintln(stderr, "dream: interrupted")
		return exitInterrupted
	case errors.As(err, &usage):
		fmt.Fprintln(stderr, "dream:", err)
		return exitUsage
	default:
		fmt.Fprintln(stderr, "dream:", sentence(err))
		return exitFailed
	}
}

// sentence is what an operator reads of an error: all of it, unless it is one that the
// queue has words for.
func sentence(err error) string {
	switch queue.CodeOf(err) {
	case queue.CodeNotFound, queue.CodeConflict, queue.CodeAmbiguous:
		return queue.SentenceOf(err)
	}
	return withHolders(err).Error()
}
