// Command upstream is the benchmark's Responses upstream: WebSocket and POST with server-sent events on one port.
//
// It answers every request with one prebuilt message of a given shape, as fast as the reader takes it or at an exact pace, and
// spends as little CPU as it can, because it shares a core with the load client. The simulator is the upstream that knows the
// protocol; this one only knows how to be quick and punctual.
//
//	GET /bench/shape?words=64&pace_s=0.02&event_bytes=32   sets the shape of all answers from now on
//	GET /bench/stats                                       counts so far, as JSON
package main

import (
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "address; port 0 takes a free one")
	handshakeDelay := flag.Duration("handshake-delay", 0, "silence before an upgrade is answered")
	flag.Parse()
	// Pinned to one core there would be one P, and the pacer would have to wait for it.
	runtime.GOMAXPROCS(2)
	debug.SetGCPercent(800)
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatalf("upstream: %v", err)
	}
	server := newServer(*handshakeDelay)
	go server.pacer.run()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go server.serve(conn.(*net.TCPConn))
		}
	}()
	fmt.Printf("listening %s\n", listener.Addr())
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, os.Interrupt)
	<-stop
}
