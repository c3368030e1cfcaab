package delivery

import (
	"context"
	"encoding/json"
	"time"

	"dreamcad/bots"
	"dreamcad/queue"
)

// alertRecord is what stands in the operators' channel about one alert.
type alertRecord struct {
	Posted   bots.Posted      `json:"posted"`
	State    queue.AlertState `json:"state"`
	Severity queue.Severity   `json:"severity"`
	Since    time.Time        `json:"since"`
	Text     string           `json:"text"`
}

func (d *Delivery) alertKey(a *queue.Alert) string {
	return "bots/alert/" + d.platform + "/" + a.Code + "/" + a.Key
}

// readAlerts posts alerts in their order. While the channel cannot be reached
// they stay in the stream.
func (d *Delivery) readAlerts(ctx context.Context) {
	consumer := "alerts/" + d.consumer
	cursor, known, try := "", false, 0
	look := true // the first ones may have been posted by a process before us
	for ctx.Err() == nil {
		var err error
		if !known {
			cursor, err = d.q.Cursor(ctx, consumer)
			known = err == nil
		}
		var alerts []queue.Alert
		if err == nil {
			alerts, err = d.q.Alerts(ctx, cursor, 100, d.config.Poll)
		}
		for i := range alerts {
			// A newer state of the same alert makes the older one superfluous.
			if !superseded(alerts[i+1:], &alerts[i]) {
				err = d.alert(ctx, &alerts[i], look)
			}
			if err == nil {
				cursor = alerts[i].ID
				err = d.q.Ack(ctx, consumer, cursor)
			}
			if err != nil {
				break
			}
		}
		if err == nil {
			try, look = 0, false
			continue
		}
		look = true
		if ctx.Err() == nil && try == 0 {
			d.log.Warn("alerts cannot be posted; they are kept", "err", err)
		}
		sleep(ctx, d.backoff(try))
		try++
	}
}

func superseded(later []queue.Alert, a *queue.Alert) bool {
	for i := range later {
		if later[i].Code == a.Code && later[i].Key == a.Key && later[i].State == a.State && later[i].Since.Equal(a.Since) {
			return true
		}
	}
	return false
}

// alert brings the message about an alert up to date: one message from firing
// to resolved, however often it is raised; a rise in severity, which an edit
// would tell nobody, gets a new one. look: it may have been posted already by
// a process that ended before it wrote that down.
func (d *Delivery) alert(ctx context.Context, a *queue.Alert, look bool) error {
	var rec alertRecord
	r, err := d.q.Get(ctx, d.alertKey(a))
	if err == nil {
		err = json.Unmarshal(r.Value, &rec)
	} else if queue.CodeOf(err) == queue.CodeNotFound {
		err = nil
	}
	if err != nil {
		return err
	}
	active := rec.State == queue.Firing
	switch {
	case a.State == queue.Resolved && !active:
		return nil // it was silenced, or told already
	case active && rec.State == a.State && rec.Text == a.Text && rec.Severity == a.Severity:
		return nil
	case a.State == queue.Firing && !active:
		silenced, err := queue.Silenced(ctx, d.q, a.Code, a.Key)
		if err != nil || silenced {
			return err
		}
	}
	acked, err := d.decided(ctx, bots.AckKey(a.Code, a.Key))
	if err != nil {
		return err
	}
	m := d.render.Alert(a, acked)
	posted := rec.Posted
	if active && a.Severity == queue.Critical && rec.Severity != queue.Critical && a.State == queue.Firing {
		active = false
	}
	if active {
		err = d.editAlert(ctx, posted, m)
		if trouble(err) == bots.TroubleMessage { // deleted or too old: a new one tells the news
			active = false
		} else if err != nil {
			return err
		}
	}
	if !active {
		if posted, err = d.postAlert(ctx, a, m, look); err != nil {
			return err
		}
	}
	if a.State == queue.Resolved {
		_ = d.q.Delete(ctx, bots.AckKey(a.Code, a.Key), queue.AnyVersion) // the next episode is a new one; it ends by itself too
	}
	text, err := json.Marshal(alertRecord{Posted: posted, State: a.State, Severity: a.Severity, Since: a.Since, Text: a.Text})
	if err != nil {
		return err
	}
	_, err = d.q.Put(ctx, d.alertKey(a), text, queue.AnyVersion, statusLife)
	return err
}

// alertPatience bounds one call for an alert.
const alertPatience = 20 * time.Second

func (d *Delivery) editAlert(ctx context.Context, p bots.Posted, m bots.Message) error {
	return d.out.Send(ctx, Alert, d.out.pacer.Buckets(EditMessage, d.config.OpsChannel), func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, alertPatience)
		defer cancel()
		return d.chat.Edit(ctx, p, m)
	})
}

func (d *Delivery) postAlert(ctx context.Context, a *queue.Alert, m bots.Message, look bool) (bots.Posted, error) {
	spot := bots.Spot{Channel: d.config.OpsChannel}
	nonce := bots.Nonce(a.Code+"|"+a.Key, string(a.State)+string(a.Severity)+a.Since.UTC().Format(time.RFC3339Nano))
	if look {
		// Where looking is refused the alert goes out all the same: twice is
		// better than never.
		if p, err := d.find(ctx, Alert, spot, nonce, a.Since); err == nil && p != nil {
			return *p, nil
		}
	}
	return Ask(ctx, d.out, Alert, d.out.pacer.Buckets(PostMessage, spot.Channel), func(ctx context.Context) (bots.Posted, error) {
		ctx, cancel := context.WithTimeout(ctx, alertPatience)
		defer cancel()
		return d.chat.Post(ctx, spot, m, nonce)
	})
}

// decided returns a sentence about an operator's decision, or "".
func (d *Delivery) decided(ctx context.Context, key string) (string, error) {
	r, err := d.q.Get(ctx, key)
	if queue.CodeOf(err) == queue.CodeNotFound {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	var dec bots.Decision
	if err := json.Unmarshal(r.Value, &dec); err != nil {
		return "", err
	}
	return bots.Language("en").Say("alert.acked", bots.User(dec.By)), nil
}
