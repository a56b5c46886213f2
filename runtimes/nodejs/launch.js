'use strict';
// Preloaded into a template, `node --require /run/tanebi/launch.js ...`, before the functions framework's own main,
// which then starts as ever. Makes what a clone draws differ from what its template and the other clones draw, and
// says which requests warm the server without reaching the function. Loads, starts and serves nothing itself.
//
// One word of memory says whether this is a clone: the engine stores 1 there before anything runs in one. Every
// generator here looks at it on every draw, so no order of events can show a clone the numbers of its template.
// OpenSSL needs no help: each of its generators reseeds when the pid is another one, and it goes from 2 to 1.

const crypto = require('crypto');
const { channel } = require('diagnostics_channel');
const { EventEmitter } = require('events');
const fs = require('fs');
const http = require('http');
const { syncBuiltinESMExports } = require('module');
const threads = require('worker_threads');

const WORD = 'tanebi.word'; // the key under which worker threads find the word
const SAID = 6;             // the pipe the engine reads at the freeze

const before = Object.keys(require.cache).filter((name) => name !== __filename);
const flag = process.execArgv.indexOf(__filename);
if (flag > 0) process.execArgv.splice(flag - 1, 2); // child_process.fork passes these on
delete require.cache[__filename];

if (!threads.isMainThread) {
  // Worker threads inherit the --require; each has generators and caches of its own.
  const word = threads.getEnvironmentData(WORD);
  if (word) makeUnique(word);
} else if (process.env.TANEBI_TEMPLATE) {
  delete process.env.TANEBI_TEMPLATE;
  makeTemplate();
}

function makeTemplate() {
  const word = new Int32Array(new SharedArrayBuffer(4096));
  let address = 0;
  let why = '';
  if (before.length > 0) why = `${before[0]} was loaded first and may keep the plain generators`;
  else if (process.pid === 1) why = 'pid 1 would stay the same in a clone, and OpenSSL not reseed';
  else {
    try {
      address = addressOf(word);
      why = address ? '' : 'the word was not found in the heap';
    } catch (error) {
      why = error.message;
    }
  }
  if (why) return say(`refused ${why}`);
  threads.setEnvironmentData(WORD, word);
  const renew = makeUnique(word);
  say(`flag 0x${address.toString(16)}`);
  atListen((server) => {
    for (const path of ['/favicon.ico', '/robots.txt']) if (endsInFramework(server, path)) say(`warm ${path}`);
    server.prependListener('connection', function first() {
      if (word[0] === 0) return;
      server.removeListener('connection', first);
      renew();
    });
  });
}

function say(line) {
  fs.writeSync(SAID, `${line}\n`);
}

/**
 * The address of `word` in this process, 0 if it is not found. A random mark in it is looked for in the pages that are
 * there, the heap's first; that a second change shows at the same place proves it the word and not a copy of the mark.
 */
function addressOf(word) {
  const bytes = Buffer.from(word.buffer, 0, 16); // the word is 16-byte aligned: no end of a page cuts the mark
  const mark = crypto.randomBytes(bytes.length);
  const maps = fs.readFileSync('/proc/self/maps', 'latin1').matchAll(/^(\w+)-(\w+) rw-p 0+ 00:00 0 *(.*)$/gm);
  const regions = [...maps].sort(([, , , a], [, , , b]) => (b === '[heap]') - (a === '[heap]'));
  const memory = fs.openSync('/proc/self/mem');
  const pagemap = fs.openSync('/proc/self/pagemap');
  const page = Buffer.alloc(4096);
  bytes.set(mark);
  try {
    for (const [start, end] of regions.map(([, from, to]) => [parseInt(from, 16), parseInt(to, 16)])) {
      const entries = Buffer.alloc((end - start) / page.length * 8);
      fs.readSync(pagemap, entries, 0, entries.length, start / page.length * 8);
      for (let at = start; at < end; at += page.length) {
        if ((entries[(at - start) / page.length * 8 + 7] & 0x80) === 0) continue; // not in memory
        fs.readSync(memory, page, 0, page.length, at);
        for (let i = page.indexOf(mark); i >= 0; i = page.indexOf(mark, i + 1)) {
          bytes[0] ^= 255;
          fs.readSync(memory, page, 0, bytes.length, at + i);
          if (page.subarray(0, bytes.length).equals(bytes)) return at + i;
          bytes[0] ^= 255;
          fs.readSync(memory, page, 0, page.length, at);
        }
      }
    }
    return 0;
  } finally {
    fs.closeSync(memory);
    fs.closeSync(pagemap);
    word.fill(0);
  }
}

/** Gives this thread generators that look at `word`. Returns what refills, in a clone, pools that packages filled. */
function makeUnique(word) {
  const web = Object.getPrototypeOf(crypto.webcrypto);
  const { randomFillSync, randomInt, randomUUID } = crypto;

  // Math.random, from blocks of OpenSSL's bytes; about as fast as V8's own.
  const block = new Uint32Array(2048);
  let drawn = block.length;
  let filledIn = 0;
  Math.random = {
    random() {
      if (drawn === block.length || filledIn !== word[0]) {
        filledIn = word[0]; // before the bytes are drawn: a freeze between the two must not make old bytes look new
        randomFillSync(block);
        drawn = 0;
      }
      return ((block[drawn++] >>> 5) * 67108864 + (block[drawn++] >>> 6)) / 9007199254740992;
    },
  }.random;

  // Node draws UUIDs and integers from caches of random bytes: a clone first uses up what its template left there.
  const firstInClone = (draw, times) => {
    let done = false;
    return () => {
      if (done || word[0] === 0) return;
      done = true;
      for (let i = 0; i < times; i++) draw(256);
    };
  };
  const useUpUuids = firstInClone(() => randomUUID(), 128);
  const useUpIntegers = firstInClone(randomInt, 1024);
  const replace = (owner, name, make) => {
    if (typeof owner[name] === 'function') owner[name] = make(owner[name]);
  };
  for (const [owner, name] of [[crypto, 'randomUUID'], [crypto, 'randomUUIDv7'], [web, 'randomUUID']]) {
    replace(owner, name, (draw) => ({
      [name](...args) { useUpUuids(); return Reflect.apply(draw, this, args); },
    })[name]);
  }
  replace(crypto, 'randomInt', (draw) => ({
    randomInt(min, max, callback) {
      useUpIntegers();
      const done = typeof max === 'function' ? max : callback;
      if (typeof done !== 'function') return draw(min, max, callback);
      // Drawn at once: a fill of the cache under way at the freeze would end in the clone, with the template's bytes.
      process.nextTick(done, undefined, done === max ? draw(min) : draw(min, max));
    },
  }).randomInt);

  // nanoid, uuid and ws keep pools of random bytes; see renew below.
  const pools = [];
  for (const [owner, name] of [[crypto, 'randomFillSync'], [web, 'getRandomValues']]) {
    replace(owner, name, (fill) => ({
      [name](view, ...range) {
        const filled = Reflect.apply(fill, this, [view, ...range]);
        const [offset = 0, size = view.length] = range;
        const whole = ArrayBuffer.isView(view) && offset === 0 && size === view.length;
        if (word[0] === 0 && whole && view.byteLength >= 256 && view.byteLength <= 8192 && pools.length < 64) {
          pools.push({ view: new WeakRef(view), was: Buffer.from(bytesOf(view)) });
        }
        return filled;
      },
    })[name]);
  }

  const { pid } = process;
  Object.defineProperty(process, 'pid', { get: () => (word[0] ? 1 : pid), enumerable: true, configurable: true });

  // A worker thread with options of its own would not inherit the --require.
  threads.Worker = new Proxy(threads.Worker, {
    construct(target, [file, options], self) {
      if (typeof options?.env !== 'object' && !Array.isArray(options?.execArgv)) return Reflect.construct(target, [file, options], self);
      const execArgv = [...options.execArgv ?? [], '--require', __filename];
      return Reflect.construct(target, [file, { ...options, execArgv }], self);
    },
  });
  syncBuiltinESMExports();

  // A pool is told from a key or from a buffer used again by its size and by still holding just what it was filled with.
  return function renew() {
    for (const { view, was } of pools.splice(0)) {
      const bytes = view.deref() && bytesOf(view.deref());
      if (bytes?.equals(was)) randomFillSync(bytes);
    }
  };
}

function bytesOf(view) {
  return Buffer.from(view.buffer, view.byteOffset, view.byteLength);
}

/** Calls `then` with the framework's server just before it listens. */
function atListen(then) {
  const { prototype } = http.Server;
  const { listen } = prototype; // inherited from net.Server
  const { PORT } = process.env;
  const watched = {
    listen(...args) {
      if (String(args[0]) === PORT) {
        if (prototype.listen === watched) delete prototype.listen;
        then(this);
      }
      return Reflect.apply(listen, this, args);
    },
  }.listen;
  prototype.listen = watched;
}

/**
 * Whether a GET of `path` ends in the framework: a layer for just this path stands before the function's route, or that
 * route takes no GET (event, cloudevent and typed functions). No, if instruments of the user's would see the request.
 */
function endsInFramework(server, path) {
  const [app] = server.listeners('request');
  const { hasSubscribers } = channel('http.server.request.start');
  if (hasSubscribers || http.Server.prototype.emit !== EventEmitter.prototype.emit) return false;
  for (const layer of (app._router ?? app.router)?.stack ?? []) {
    if (layer.route) return !layer.route.methods.get && !layer.route.methods._all;
    if (layer.match(path) && !layer.match('/')) return true;
  }
  return false;
}
