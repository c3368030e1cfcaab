// Command slacktest runs the Slack test server by itself, for apps in other
// languages. It prints its address and tokens as one line of JSON.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"

	"dreamcad/bots/slack/slacktest"
)

func main() {
	addr := flag.String("listen", "127.0.0.1:0", "address to listen on")
	flag.Parse()
	l, err := net.Listen("tcp", *addr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "slacktest:", err)
		os.Exit(1)
	}
	s := slacktest.Listen(l)
	defer s.Close()
	_ = json.NewEncoder(os.Stdout).Encode(map[string]string{
		"url": s.URL(), "bot_token": s.BotToken, "app_token": s.AppToken, "secret": s.Secret,
	})
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt)
	<-stop
}
