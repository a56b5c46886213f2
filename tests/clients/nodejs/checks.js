/** Counts what holds; the first thing that does not ends the program. */

import {inspect, isDeepStrictEqual} from 'node:util';

const PATIENCE_MS = 60_000;
let passed = 0;

export function check(what, seen, expect = true) {
  if (!isDeepStrictEqual(seen, expect)) throw new Error(`${what}: ${inspect(seen)}, not ${inspect(expect)}`);
  passed += 1;
}

/** `call` must be refused with this code, of gRPC or of HTTP; gives the error. */
export async function refused(what, code, call) {
  let seen;
  try {
    seen = await call();
  } catch (error) {
    check(what, error.code, code);
    return error;
  }
  throw new Error(`${what}: answered ${inspect(seen, {depth: 1})}`);
}

/** Looks again until `look` gives something. */
export async function eventually(what, look) {
  const end = Date.now() + PATIENCE_MS;
  for (;;) {
    const seen = await look();
    if (seen) return seen;
    if (Date.now() > end) throw new Error(`${what}: never`);
    await new Promise(resolve => setTimeout(resolve, 100));
  }
}

export function told() {
  console.log(`${passed} checks passed`);
}
