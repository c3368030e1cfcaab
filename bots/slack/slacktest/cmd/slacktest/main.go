// Command slacktest runs the Slack test server by itself, for apps in other
// languages. It prints its address and tokens as one line of JSON.
package main

import (
	"net"

	"dreamcad/bots/chattest/testserver"
	"dreamcad/bots/slack/slacktest"
)

func main() {
	testserver.Main(func(l net.Listener) (map[string]string, func()) {
		s := slacktest.Listen(l)
		return map[string]string{"url": s.URL(), "bot_token": s.BotToken, "app_token": s.AppToken, "secret": s.Secret}, s.Close
	})
}
