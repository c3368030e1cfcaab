// Package bots turns commands into jobs and answers, for every platform alike.
//
// A platform's adapter (packages discord, slack, and the web console) forms a
// [Command] from what a person typed or clicked, [Service.Execute] answers with a
// [Reply], and package delivery turns queue events into [Message]s that the
// adapter posts through its [Chat]. Texts come from one catalogue in three
// languages; what people typed is marked in them ([User]), so that each adapter
// can escape it in the way of its platform.
package bots

import (
	"context"
	"fmt"
	"io"
	"time"

	"dreamcad/bots/parse"
	"dreamcad/queue"
)

// Command is what a person asked, with everything the service needs to know
// about the person and the place.
type Command struct {
	parse.Command
	From   queue.Requester
	Origin queue.Origin // where the answer goes; Extra is the adapter's
	// Key is the platform's id of the interaction: the same key gives the same
	// job, however often it arrives (≤ 150 bytes).
	Key    string
	Locale string // BCP 47, as the platform says; "" is English
	Space  string // server, guild or workspace; "" in direct messages
	Roles  []string
	// File is what /ingest came with.
	File *Attachment
	// Adult says that the platform marks the place as age-restricted.
	Adult bool
	// Confirmed says that the person was asked and agreed (ForgetMe).
	Confirmed bool
	// Alert is the Code and Key of the alert that Ack and Silence are about.
	Alert [2]string
}

// Attachment is a file that came with a command. Open reads it; the caller
// closes it and bounds what is read.
type Attachment struct {
	Name string // as the person named it: never part of a path
	Size int64
	Open func(ctx context.Context) (io.ReadCloser, error)
}

// Reply answers a command at once.
type Reply struct {
	Message
	Refused bool     // Text says why
	Private bool     // only the person who asked may see it
	Job     string   // the job that was made, or that the answer is about
	Jobs    []string // the jobs listed, newest first
}

// Message is something to show. Text and field values may hold marks (see
// User and When): adapters pass them through Encode.
type Message struct {
	Text    string
	Fields  []Field
	Files   []File
	Buttons []Button
	Menu    *Menu
	// Mention is the id of the one person to notify; "" notifies nobody.
	Mention string
	Tone    Tone
}

// Tone colours a message; the text says the same in words.
type Tone int

// The tones.
const (
	Plain Tone = iota
	Good
	Warn
	Bad
)

// Field is a short labelled value.
type Field struct{ Name, Value string }

// File is a picture to show with a message, or a file to take from it. Read
// returns its bytes.
type File struct {
	Name      string // of the manifest: view-0.png, views.png, turntable.gif …
	MediaType string
	Bytes     int64
	Alt       string // what is to be seen, for those who cannot
	Spoiler   bool   // to be covered, or left out where the platform cannot cover it
	Read      func(ctx context.Context) ([]byte, error)
}

// Style of a button.
type Style int

// The styles.
const (
	Secondary Style = iota
	Primary
	Danger
)

// Button does something (ID, see ButtonID) or leads somewhere (URL).
type Button struct {
	ID    string
	URL   string
	Label string
	Style Style
	// Confirm, when set, asks before it acts, where the platform can ask.
	Confirm string
}

// Picture tells whether chat can show the file.
func (f *File) Picture() bool { return pictureTypes[f.MediaType] }

var pictureTypes = map[string]bool{"image/png": true, "image/gif": true, "image/jpeg": true}

// Menu offers things of which one can be picked; each ID acts as a button's.
type Menu struct {
	Label   string
	Options []Option // at most 25
}

// Option is one thing of a menu.
type Option struct{ ID, Label string }

// Spot is a place to post to: a channel or a thread of it.
type Spot struct {
	Channel string `json:"channel"`
	Thread  string `json:"thread,omitempty"`
}

// Posted names a message that exists.
type Posted struct {
	Spot
	ID string `json:"id"`
}

// Chat is what package delivery needs of a platform. Errors are [*ChatError]
// where it matters what went wrong.
type Chat interface {
	// Platform is the word in queue.Origin.Platform.
	Platform() string
	// Post makes a new message. The nonce (≤ 25 characters) is the same for
	// each attempt at one message; the platform or Find recognises it.
	Post(ctx context.Context, to Spot, m Message, nonce string) (Posted, error)
	// Edit replaces a message. Files nil keeps the pictures that it has.
	Edit(ctx context.Context, p Posted, m Message) error
	// Direct opens the private conversation with a person.
	Direct(ctx context.Context, user string) (Spot, error)
	// Find looks for a message with the nonce, posted at or after since.
	// ErrCannotLook: the platform refuses to show what was posted.
	Find(ctx context.Context, in Spot, nonce string, since time.Time) (Posted, bool, error)
}

// Trouble classes what went wrong on a platform by what to do about it.
type Trouble int

// The classes.
const (
	TroubleTemporary Trouble = iota // network, 5xx: again with backoff, same nonce
	TroubleLimited                  // rate limit: again after RetryAfter
	TroublePlace                    // channel gone or closed to us: go elsewhere
	TroubleThread                   // thread gone or archived: its channel may do
	TroublePerson                   // the person takes no direct messages
	TroubleMessage                  // the message to edit is gone or too old: post anew
	TroubleSize                     // too large: drop the files
	TroubleContent                  // refused as it is: plain text without the prompt
	TroubleRevoked                  // the token is dead: stop and tell the operators
	TroubleLook                     // Find is not allowed
)

// ChatError is an error of a platform, with what to do about it.
type ChatError struct {
	Trouble    Trouble
	RetryAfter time.Duration
	// Bucket is the rate limit that was hit; "" is the route's own, "global" all.
	Bucket string
	Doing  string
	Err    error
}

func (e *ChatError) Error() string { return fmt.Sprintf("%s: %v", e.Doing, e.Err) }

func (e *ChatError) Unwrap() error { return e.Err }

// Finding is one line of a check: what is so, or what is wrong and what to do.
type Finding struct {
	OK   bool   `json:"ok"`
	Note bool   `json:"note,omitempty"` // not wrong, but hardly what is wanted
	Text string `json:"text"`
}
