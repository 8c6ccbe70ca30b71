// go run walrus.go [host:port]
package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"log"
	"net"
	"os"
)

func call(broker net.Conn, request string) (string, error) {
	frame := binary.LittleEndian.AppendUint32(nil, uint32(len(request)))
	if _, err := broker.Write(append(frame, request...)); err != nil {
		return "", err
	}
	var length uint32
	if err := binary.Read(broker, binary.LittleEndian, &length); err != nil {
		return "", err
	}
	reply := make([]byte, length)
	_, err := io.ReadFull(broker, reply)
	return string(reply), err
}

func main() {
	addr := append(os.Args, "127.0.0.1:9091")[1]
	broker, err := net.Dial("tcp", addr)
	if err != nil {
		log.Fatal(err)
	}
	for _, request := range []string{"REGISTER logs", "PUT logs hello world", "GET logs"} {
		reply, err := call(broker, request)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(reply)
	}
}
