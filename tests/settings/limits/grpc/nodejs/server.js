// The server of ../go/main.go in Node.js: messages are bytes, so that nothing has to be generated.
const grpc = require("@grpc/grpc-js");

let ended = 0;
// Whoever waits for the second part of a stream, and how often it was let go already.
const [waiting, gate] = [[], { open: 0 }];

const told = (call, name) => call.metadata.get(name)[0];

/** The status that the caller asks for. */
function failure(call) {
  const code = told(call, "fail");
  return code === undefined ? null : { code: Number(code), details: `だめ: ${code}` };
}

function last(call) {
  const trailer = new grpc.Metadata();
  trailer.set("told-at-last", told(call, "tell") ?? "");
  return trailer;
}

const handlers = {
  Unary(call, callback) {
    if (told(call, "wait")) {
      call.on("cancelled", () => ended++);
      return;
    }
    const wrong = failure(call);
    if (wrong) {
      callback(wrong);
      return;
    }
    const header = new grpc.Metadata();
    header.set("told", told(call, "tell") ?? "");
    header.set("told-bin", told(call, "tell-bin") ?? Buffer.alloc(0));
    call.sendMetadata(header);
    callback(null, call.request, last(call));
  },
  Open(call, callback) {
    const next = waiting.shift();
    if (next) next();
    else gate.open++;
    callback(null, Buffer.alloc(0));
  },
  Ended(call, callback) {
    callback(null, Buffer.from(String(ended)));
  },
  async ServerStream(call) {
    call.write(Buffer.from("first"));
    if (gate.open > 0) gate.open--;
    else await new Promise((resolve) => waiting.push(resolve));
    call.write(Buffer.from("last"));
    const wrong = failure(call);
    if (wrong) call.emit("error", { ...wrong, metadata: last(call) });
    else call.end(last(call));
  },
  ClientStream(call, callback) {
    let total = 0;
    call.on("data", (message) => (total += message.length));
    call.on("end", () => callback(null, Buffer.from(String(total))));
  },
  Bidi(call) {
    call.on("data", (message) => {
      call.write(message);
      if (told(call, "early")) call.emit("error", failure(call));
    });
    call.on("end", () => call.end());
    call.on("cancelled", () => ended++);
  },
};

// A HealthCheckResponse that says SERVING: the number 1 in field 1.
const health = (call, callback) => callback(null, Buffer.from([8, 1]));

const kinds = { ServerStream: [false, true], ClientStream: [true, false], Bidi: [true, true] };
const same = (bytes) => bytes;
const method = (path, [requestStream, responseStream]) => ({
  path,
  requestStream,
  responseStream,
  requestSerialize: same,
  requestDeserialize: same,
  responseSerialize: same,
  responseDeserialize: same,
});
const service = Object.fromEntries(Object.keys(handlers).map((name) => [name, method(`/tanebi.Echo/${name}`, kinds[name] ?? [false, false])]));

const server = new grpc.Server({ "grpc.max_receive_message_length": 64 << 20, "grpc.max_send_message_length": 64 << 20 });
server.addService(service, handlers);
server.addService({ Check: method("/grpc.health.v1.Health/Check", [false, false]) }, { Check: health });
server.bindAsync(`0.0.0.0:${process.env.PORT}`, grpc.ServerCredentials.createInsecure(), (error) => {
  if (error) throw error;
});
