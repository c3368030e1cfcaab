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
	Posted bots.Posted      `json:"posted"`
	State  queue.AlertState `json:"state"`
	Since  time.Time        `json:"since"`
	Text   string           `json:"text"`
}

func (d *Delivery) alertKey(a *queue.Alert) string {
	return "bots/alert/" + d.platform + "/" + a.Code + "/" + a.Key
}

// readAlerts posts alerts in their order. While the channel cannot be reached
// they stay in the stream.
func (d *Delivery) readAlerts(ctx context.Context) {
	consumer := "alerts/" + d.consumer
	cursor, known, try := "", false, 0
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
				err = d.alert(ctx, &alerts[i])
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
			try = 0
			continue
		}
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
// to resolved, however often it is raised.
func (d *Delivery) alert(ctx context.Context, a *queue.Alert) error {
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
	case active && rec.State == a.State && rec.Text == a.Text:
		return nil
	case a.State == queue.Firing && !active:
		silenced, err := d.decided(ctx, bots.SilenceKey(a.Code, a.Key))
		if err != nil || silenced != "" {
			return err
		}
	}
	acked, err := d.decided(ctx, bots.AckKey(a.Code, a.Key))
	if err != nil {
		return err
	}
	m := d.render.Alert(a, acked)
	posted := rec.Posted
	if active {
		err = d.sendAlert(ctx, EditMessage, func(ctx context.Context) error { return d.chat.Edit(ctx, posted, m) })
		if trouble(err) == bots.TroubleMessage { // deleted or too old: a new one tells the news
			active = false
		} else if err != nil {
			return err
		}
	}
	if !active {
		nonce := bots.Nonce(a.Code+"|"+a.Key, string(a.State)+a.Since.UTC().Format(time.RFC3339Nano))
		err = d.sendAlert(ctx, PostMessage, func(ctx context.Context) error {
			posted, err = d.chat.Post(ctx, bots.Spot{Channel: d.config.OpsChannel}, m, nonce)
			return err
		})
		if err != nil {
			return err
		}
	}
	if a.State == queue.Resolved {
		_ = d.q.Delete(ctx, bots.AckKey(a.Code, a.Key), queue.AnyVersion) // the next episode is a new one; it ends by itself too
	}
	text, err := json.Marshal(alertRecord{Posted: posted, State: a.State, Since: a.Since, Text: a.Text})
	if err != nil {
		return err
	}
	_, err = d.q.Put(ctx, d.alertKey(a), text, queue.AnyVersion, statusLife)
	return err
}

func (d *Delivery) sendAlert(ctx context.Context, k Kind, do func(context.Context) error) error {
	return d.out.Send(ctx, Alert, d.out.pacer.Buckets(k, d.config.OpsChannel), func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
		defer cancel()
		return do(ctx)
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
