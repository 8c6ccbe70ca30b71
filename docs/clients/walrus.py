# python3 walrus.py [host:port]
import socket, struct, sys

host, port = (sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:9091").rsplit(":", 1)
broker = socket.create_connection((host, int(port)))
replies = broker.makefile("rb")

def call(request: bytes) -> bytes:
    broker.sendall(struct.pack("<I", len(request)) + request)
    return replies.read(struct.unpack("<I", replies.read(4))[0])

print(call(b"REGISTER logs").decode())
print(call(b"PUT logs hello world").decode())
print(call(b"GET logs").decode())
