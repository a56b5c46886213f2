'use strict';
// Preloaded into a template, `node --require /run/tanebi/launch.js ...`, before the functions framework, which then
// starts as ever. Makes what a clone draws differ from what its template and the other clones draw, warms the
// framework, and says which requests may warm it further. Loads and serves no function.
//
// One word of memory tells a clone: the engine stores 1 there before anything runs in it. Every generator here looks at
// the word on every draw, so no order of events can show a clone its template's numbers. OpenSSL needs no help: each of
// its generators reseeds itself when the pid is another one, and in a clone it is 1.
const crypto = require('crypto');
const { channel } = require('diagnostics_channel');
const { EventEmitter, once } = require('events');
const fs = require('fs');
const { createServer, Server } = require('http');
const { syncBuiltinESMExports } = require('module');
const { connect } = require('net');
const path = require('path');
const { setFlagsFromString } = require('v8');
const { runInNewContext } = require('vm');
const threads = require('worker_threads');

const WORD = 'tanebi.word'; // under which worker threads find the word
const PAGE = 4096;
const ROUNDS = 20; // of two requests: 100 and 400 were no better
const [early] = Object.keys(require.cache).filter((name) => name !== __filename);

const flag = process.execArgv.indexOf(__filename);
if (flag > 0) process.execArgv.splice(flag - 1, 2); // or child_process.fork passes these on
if (process.execArgv[flag - 2] === '--no-memory-reducer') process.execArgv.splice(flag - 2, 1);
delete require.cache[__filename];
if (!threads.isMainThread) {
  const word = threads.getEnvironmentData(WORD);
  if (word) makeUnique(word); // each thread has generators and caches of its own
} else if (process.env.TANEBI_TEMPLATE) {
  const level = process.env.TANEBI_TEMPLATE;
  delete process.env.TANEBI_TEMPLATE;
  makeTemplate(new Int32Array(new SharedArrayBuffer(PAGE)), level);
}

function makeTemplate(word, level) {
  try {
    if (early) throw new Error(`${early} was loaded first and may keep the plain generators`);
    if (process.pid === 1) throw new Error('a clone would have the same pid, and OpenSSL not reseed');
    const address = addressOf(word);
    if (!address) throw new Error('the word was not found in memory');
    const renewPools = makeUnique(word);
    threads.setEnvironmentData(WORD, word);
    const known = framework();
    if (level === 'runtime' && !known) throw new Error('its program is not the framework as it is known');
    if (known) beforeFunction(known, level === 'runtime' ? () => stop(word, known) : () => warm(known));
    beforeListen((server) => {
      if (parseInt(process.versions.node) < 20) collectOnce();
      for (const url of ['/favicon.ico', '/robots.txt']) if (known && endsInFramework(server, url)) say(`warm ${url}`);
      server.prependListener('connection', function first() {
        if (word[0] === 0) return;
        server.removeListener('connection', first);
        renewPools();
      });
    });
    say(`flag 0x${address.toString(16)}`);
  } catch (error) {
    say(`refused ${error.message}`);
  }
}

/** Has the framework wait for `done` where it would load the function. */
function beforeFunction({ build }, done) {
  const loader = require(path.join(build, 'loader.js'));
  const { getUserFunction } = loader;
  loader.getUserFunction = async (...options) => {
    loader.getUserFunction = getUserFunction;
    await done();
    return getUserFunction(...options);
  };
}

/** Says that this is as far as a template of the runtime goes; resolves in a clone. */
async function stop(word, known) {
  await import('node:path'); // the loader of modules is made at its first use
  await warm(known);
  if (parseInt(process.versions.node) < 20) collectOnce();
  say('ready');
  // A wait that is over by the clock, as every clone's is, ends at once.
  while (word[0] === 0) Atomics.wait(word, 0, 0, 10);
}

function say(line) {
  fs.writeSync(6, `${line}\n`);
}

/**
 * The address of `word`, undefined if it is not found. The random bytes behind it are looked for in the pages that are
 * in memory, the heap's first; a copy of them is told from the word by its not following when the word is changed.
 */
function addressOf(word) {
  const mark = Buffer.from(crypto.randomFillSync(Buffer.from(word.buffer, 4, 12))); // 16-byte aligned: in one page
  const memory = fs.openSync('/proc/self/mem');
  const pagemap = fs.openSync('/proc/self/pagemap');
  const read = (fd, size, at) => {
    const part = Buffer.alloc(size);
    fs.readSync(fd, part, 0, size, at);
    return part;
  };
  try {
    const maps = fs.readFileSync('/proc/self/maps', 'latin1').matchAll(/^(\w+)-(\w+) rw-p 0+ 00:00 0 *(.*)$/gm);
    for (const [, from, to] of [...maps].sort((a, b) => (b[3] === '[heap]') - (a[3] === '[heap]'))) {
      const start = parseInt(from, 16);
      const pages = read(pagemap, (parseInt(to, 16) - start) / PAGE * 8, start / PAGE * 8);
      for (let entry = 0; entry < pages.length; entry += 8) {
        if (pages[entry + 7] < 128) continue; // not in memory, and reading would bring it there
        const at = start + entry / 8 * PAGE;
        const page = read(memory, PAGE, at);
        for (let i = page.indexOf(mark, 4); i >= 0; i = page.indexOf(mark, i + 1)) {
          word[0]++;
          if (read(memory, 4, at + i - 4).readInt32LE() === word[0]) return at + i - 4;
        }
      }
    }
  } finally {
    fs.closeSync(memory);
    fs.closeSync(pagemap);
    word.fill(0);
  }
}

/** Gives this thread generators that look at `word`. Returns what a clone calls to refill pools of random bytes. */
function makeUnique(word) {
  const { randomFillSync, randomInt: drawInteger, randomUUID } = crypto;
  const web = Object.getPrototypeOf(crypto.webcrypto);

  const block = new Uint32Array(2048);
  let drawn = block.length;
  let filledIn = 0;
  Math.random = {
    random() {
      if (drawn === block.length || filledIn !== word[0]) {
        filledIn = word[0]; // first: a freeze in between must not make a template's bytes pass for a clone's
        randomFillSync(block);
        drawn = 0;
      }
      return ((block[drawn++] >>> 5) * 67108864 + (block[drawn++] >>> 6)) / 9007199254740992;
    },
  }.random;

  // Node draws UUIDs and integers from caches of random bytes: a clone first uses up what the template left there.
  const useUp = (draw, times) => () => {
    for (; word[0] && times > 0; times--) draw(256);
  };
  const useUpUuids = useUp(() => randomUUID(), 128);
  const useUpIntegers = useUp(drawInteger, 1024);
  for (const [owner, name] of [[crypto, 'randomUUID'], [crypto, 'randomUUIDv7'], [web, 'randomUUID']]) {
    const draw = owner[name];
    if (draw) owner[name] = { [name](...args) { useUpUuids(); return Reflect.apply(draw, this, args); } }[name];
  }
  crypto.randomInt = function randomInt(min, max, callback) {
    useUpIntegers();
    const done = typeof max === 'function' ? max : callback;
    if (typeof done !== 'function') return drawInteger(min, max, callback);
    // Drawn at once: Node's own fill of the cache could begin in the template and end in a clone.
    process.nextTick(done, undefined, done === max ? drawInteger(min) : drawInteger(min, max));
  };

  // nanoid, uuid and ws keep pools of random bytes, which the function filled if it drew from them while loading. A
  // pool is told from a key by its size, and from a buffer used again by still holding what it was filled with.
  const pools = [];
  const bytesOf = (view) => Buffer.from(view.buffer, view.byteOffset, view.byteLength);
  for (const [owner, name] of [[crypto, 'randomFillSync'], [web, 'getRandomValues']]) {
    const fill = owner[name];
    owner[name] = { [name](view, ...range) {
      const filled = Reflect.apply(fill, this, [view, ...range]);
      const [from = 0, size = view.length] = range;
      const whole = ArrayBuffer.isView(view) && from === 0 && size === view.length;
      if (word[0] === 0 && whole && view.byteLength >= 256 && view.byteLength <= 8192 && pools.length < 100) {
        pools.push({ view: new WeakRef(view), was: Buffer.from(bytesOf(view)) });
      }
      return filled;
    } }[name];
  }

  const { pid } = process; // a value that Node read at its start
  Object.defineProperty(process, 'pid', { get: () => (word[0] ? 1 : pid), enumerable: true, configurable: true });

  // A worker thread with an env or execArgv of its own would not inherit the --require.
  threads.Worker = new Proxy(threads.Worker, {
    construct(target, [file, options, ...rest], self) {
      const { env, execArgv = env && typeof env === 'object' ? [] : undefined } = options ?? {};
      const loaded = Array.isArray(execArgv) ? { ...options, execArgv: [...execArgv, '--require', __filename] } : options;
      return Reflect.construct(target, [file, loaded, ...rest], self);
    },
  });
  syncBuiltinESMExports();

  return () => {
    for (const { view, was } of pools.splice(0)) {
      const bytes = bytesOf(view.deref() ?? was);
      if (bytes.equals(was)) randomFillSync(bytes);
    }
  };
}

/** The folder and version of the framework that this process starts; undefined for another program or a newer framework. */
function framework() {
  try {
    const build = path.dirname(fs.realpathSync(process.argv[1]));
    const { name, version } = JSON.parse(fs.readFileSync(path.join(build, '../../package.json')));
    if (name === '@google-cloud/functions-framework' && /^[345]\./.test(version)) return { build, version };
  } catch {
    // No package, or none that is the framework.
  }
}

/**
 * Has servers of the framework's, with functions made up here, answer requests made up here: what a first request costs beyond
 * the second is compiled and known by then. Over sockets, as the code behind them is a third of it; all are closed when it is done.
 */
async function warm({ build, version }) {
  const event = 'Ce-Id: 1\r\nCe-Type: warm\r\nCe-Source: warm\r\nCe-Specversion: 1.0\r\n';
  for (const [signatureType, made, head] of [['http', (req, res) => res.type('text/plain').send('warm'), ''], ['cloudevent', () => {}, event]]) {
    let server;
    try {
      const { getServer } = require.cache[path.join(build, 'server.js')].exports;
      const options = { signatureType, ignoredRoutes: null, timeoutMilliseconds: 0, enableExecutionId: false };
      server = getServer(made, /^3\.[0-3]\./.test(version) ? signatureType : options);
      await once(server.listen(0, '127.0.0.1'), 'listening');
      const post = `POST / HTTP/1.1\r\nHost: warm\r\n${head}Content-Type: application/json\r\nContent-Length: 2\r\n`;
      for (let round = 0; round < ROUNDS; round++) {
        const client = connect(server.address().port, '127.0.0.1');
        client.setTimeout(1000, () => client.destroy(new Error('no answer')));
        client.write(signatureType === 'http' ? 'GET / HTTP/1.1\r\nHost: warm\r\n\r\n' : `${post}\r\n{}`);
        await once(client, 'data');
        client.write(`${post}Connection: close\r\n\r\n{}`);
        await once(client.resume(), 'close');
      }
    } catch {
      // It starts colder.
    }
    if (server?.listening) await once(server.close(), 'close');
  }
  await warmTimers();
}

/** Lets timers of servers come due together a few times: in a clone, whose clock has jumped, they do so before its first request. */
async function warmTimers() {
  const servers = [createServer({ connectionsCheckingInterval: 1 }), createServer({ connectionsCheckingInterval: 1 })];
  for (const server of servers) await once(server.listen(0, '127.0.0.1'), 'listening');
  for (let round = 0; round < ROUNDS; round++) {
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 3);
    await new Promise((done) => setTimeout(done, 1));
  }
  for (const server of servers) await once(server.close(), 'close');
}

/**
 * Collects garbage, after which V8 no longer waits for 8 s without work to do so: a clone, whose clock has jumped, would collect
 * during its first request. From 20 on an option that the engine gives does it, and this would not.
 */
function collectOnce() {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc');
  setFlagsFromString('--no-expose-gc');
  setFlagsFromString('--no-memory-reducer'); // looked at when a collection ends: then nothing is waited for
  collect();
  setFlagsFromString('--memory-reducer'); // or Node.js would not take the compiled code of its own modules
}

/** Calls `then` with the server of $PORT just before it listens. */
function beforeListen(then) {
  const { PORT } = process.env;
  const { prototype } = Server;
  const { listen } = prototype; // net.Server's
  const watched = { listen(...args) {
    if (String(args[0]?.port ?? args[0]) === PORT) {
      if (prototype.listen === watched) delete prototype.listen;
      then(this);
    }
    return Reflect.apply(listen, this, args);
  } }.listen;
  prototype.listen = watched;
}

/**
 * Whether a GET of `url` ends in the framework: a layer for it alone stands before the function's route, or that route
 * takes no GET, as with events and types. No, if instruments that the function brought would see the request.
 */
function endsInFramework(server, url) {
  if (Server.prototype.emit !== EventEmitter.prototype.emit || channel('http.server.request.start').hasSubscribers) return false;
  const [app] = server.listeners('request');
  for (const layer of (app?._router ?? app?.router)?.stack ?? []) {
    // Express 5 gives a GET no body; this middleware of frameworks 4 and 5 throws at that, and the error is logged.
    if (layer.name === 'backgroundEventToCloudEventMiddleware' && !app._router) return false;
    if (layer.route) return !layer.route.methods.get && !layer.route.methods._all;
    if (layer.match(url) && !layer.match('/')) return true;
  }
  return false;
}
