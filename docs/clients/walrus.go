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

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}

func call(broker net.Conn, request string) string {
	frame := binary.LittleEndian.AppendUint32(nil, uint32(len(request)))
	must(broker.Write(append(frame, request...)))
	length := make([]byte, 4)
	must(io.ReadFull(broker, length))
	reply := make([]byte, binary.LittleEndian.Uint32(length))
	must(io.ReadFull(broker, reply))
	return string(reply)
}

func main() {
	broker := must(net.Dial("tcp", append(os.Args, "127.0.0.1:9091")[1]))
	for _, request := range []string{"REGISTER logs", "PUT logs hello world", "GET logs"} {
		fmt.Println(call(broker, request))
	}
}
