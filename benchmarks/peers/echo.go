// Echo over TCP and UDP in Go: one goroutine a connection, as Go programs are written.
package main

import (
	"fmt"
	"log"
	"net"
	"os"
)

func echoStream(connection net.Conn) {
	defer connection.Close()
	buffer := make([]byte, 64*1024)
	for {
		n, err := connection.Read(buffer)
		if n > 0 {
			if _, err := connection.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func echoDatagrams(socket *net.UDPConn) {
	buffer := make([]byte, 64*1024)
	for {
		n, peer, err := socket.ReadFromUDPAddrPort(buffer)
		if err != nil {
			log.Fatal(err)
		}
		socket.WriteToUDPAddrPort(buffer[:n], peer)
	}
}

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: echo PORT")
	}
	address := fmt.Sprintf("127.0.0.1:%s", os.Args[1])
	udpAddress, err := net.ResolveUDPAddr("udp4", address)
	if err != nil {
		log.Fatal(err)
	}
	socket, err := net.ListenUDP("udp4", udpAddress)
	if err != nil {
		log.Fatal(err)
	}
	go echoDatagrams(socket)
	listener, err := net.Listen("tcp4", address)
	if err != nil {
		log.Fatal(err)
	}
	for {
		connection, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go echoStream(connection)
	}
}
