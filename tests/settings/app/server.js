// Tells what it is given, and behaves as it is told: one path a behaviour. H2=1: it speaks HTTP/2 without TLS.
const fs = require("fs");
const os = require("os");

const id = require("crypto").randomBytes(8).toString("hex");
const state = { live: true, ready: true };
// Requests now, and the most at a time.
let [now, peak] = [0, 0];
let ticks = 0;
setInterval(() => ticks++, 10).unref();

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function answer(path, query) {
  switch (path) {
    case "/about":
      return { id, env: process.env, argv: process.argv.slice(2), execPath: process.execPath };
    case "/id":
      return id;
    case "/revision":
      return process.env.K_REVISION;
    case "/sleep":
      await sleep(Number(query.get("ms")));
      return id;
    case "/ticks":
      return ticks;
    case "/burn": {
      // Processor time that one wall-clock stretch gets.
      const [wall, before] = [Date.now(), process.cpuUsage()];
      while (Date.now() - wall < Number(query.get("ms")));
      const used = process.cpuUsage(before);
      return (used.user + used.system) / 1000 / (Date.now() - wall);
    }
    case "/write":
      fs.writeFileSync(query.get("path"), Buffer.alloc(Number(query.get("bytes"))), { flag: "a" });
      return fs.statSync(query.get("path")).size;
    case "/read":
      return fs.readFileSync(query.get("path"), "utf8");
    case "/set":
      for (const [name, value] of query) state[name] = value === "true";
      return id;
    case "/account": {
      const url = "http://metadata.google.internal/computeMetadata/v1/instance/service-accounts/default/" + query.get("path");
      return (await fetch(url, { headers: { "Metadata-Flavor": "Google" } })).text();
    }
    case "/peak":
      return peak;
    default:
      return `${os.hostname()} ${path}`;
  }
}

async function handle(request, response) {
  const url = new URL(request.url, "http://function");
  if (url.pathname === "/live" || url.pathname === "/ready") {
    response.statusCode = state[url.pathname.slice(1)] ? 200 : 500;
    response.end();
    return;
  }
  try {
    peak = Math.max(peak, ++now);
    const body = await answer(url.pathname, url.searchParams);
    response.setHeader("spoken", request.httpVersion);
    response.end(typeof body === "string" ? body : JSON.stringify(body));
  } catch (error) {
    response.statusCode = 500;
    response.end(String(error));
  } finally {
    now--;
  }
}

const server = process.env.H2 ? require("http2").createServer(handle) : require("http").createServer(handle);
server.listen(Number(process.env.PORT));
