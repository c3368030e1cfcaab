// Command discordtest runs the Discord test server by itself, for bots in other
// languages. It prints its address and the bot's token as one line of JSON.
package main

import (
	"net"

	"dreamcad/bots/chattest/testserver"
	"dreamcad/bots/discord/discordtest"
)

func main() {
	testserver.Main(func(l net.Listener) (map[string]string, func()) {
		s := discordtest.Listen(l)
		return map[string]string{"url": s.URL(), "token": s.Token, "app_id": s.AppID, "public_key": s.PublicKey()}, s.Close
	})
}
