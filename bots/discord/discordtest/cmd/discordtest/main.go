// Command discordtest runs the Discord test server by itself, for bots in other
// languages. It prints its address and the bot's token as one line of JSON.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"

	"dreamcad/bots/discord/discordtest"
)

func main() {
	addr := flag.String("listen", "127.0.0.1:0", "address to listen on")
	flag.Parse()
	l, err := net.Listen("tcp", *addr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "discordtest:", err)
		os.Exit(1)
	}
	s := discordtest.Listen(l)
	defer s.Close()
	_ = json.NewEncoder(os.Stdout).Encode(map[string]string{
		"url": s.URL(), "token": s.Token, "app_id": s.AppID, "public_key": s.PublicKey(),
	})
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt)
	<-stop
}
