// node walrus.mjs [host:port]
import net from "node:net";

const [host, port] = (process.argv[2] ?? "127.0.0.1:9091").split(":");
const broker = net.connect(Number(port), host);
const waiting = []; // replies come in the order of the requests
let input = Buffer.alloc(0);
broker.on("data", (chunk) => {
  input = Buffer.concat([input, chunk]);
  for (let end; input.length >= 4 && input.length >= (end = 4 + input.readUInt32LE()); input = input.subarray(end))
    waiting.shift()(input.subarray(4, end));
});

function call(request) {
  const body = Buffer.from(request), prefix = Buffer.alloc(4);
  prefix.writeUInt32LE(body.length);
  broker.write(Buffer.concat([prefix, body]));
  return new Promise((resolve) => waiting.push(resolve));
}

console.log(String(await call("REGISTER logs")));
console.log(String(await call("PUT logs hello world")));
console.log(String(await call("GET logs")));
broker.end();
