'use strict';

// What an instance sees of its limits, and what they do to it: one path a behaviour, the same in four languages.

const fs = require('node:fs');
const os = require('node:os');
const v8 = require('node:v8');
const {setTimeout} = require('node:timers/promises');
const functions = require('@google-cloud/functions-framework');

const state = {live: true, ready: true};
// Requests now, the most at a time, and those whose callers did not wait.
const count = {now: 0, peak: 0, aborted: 0};

functions.http('limits', async (req, res) => {
  if (req.path === '/live' || req.path === '/ready') {
    res.status(state[req.path.slice(1)] ? 200 : 500).end();
    return;
  }
  count.peak = Math.max(count.peak, ++count.now);
  res.on('close', () => {
    count.now--;
    count.aborted += res.writableFinished ? 0 : 1;
  });
  res.type('text/plain').send(await paths[req.path](req.query));
});

/** The text of a file; nothing where there is none. */
function content(path) {
  return fs.existsSync(path) ? fs.readFileSync(path, 'utf8').trim() : '';
}

const paths = {
  /** What it sees. */
  '/about'() {
    return JSON.stringify({
      id: os.hostname(),
      heap: v8.getHeapStatistics().heap_size_limit,
      processors: os.availableParallelism(),
      constrained: process.constrainedMemory(),
      memory: content('/sys/fs/cgroup/memory.max'),
      cpu: content('/sys/fs/cgroup/cpu.max'),
      key: process.env.KEY ?? '',
      file: content('/secrets/key'),
      peak: count.peak,
      aborted: count.aborted,
    });
  },

  /** Answers after the time asked for. */
  async '/sleep'({ms}) {
    await setTimeout(Number(ms));
    return os.hostname();
  },

  /** Processor time that one wall-clock stretch gets. */
  '/burn'({ms}) {
    const [wall, before] = [performance.now(), process.cpuUsage()];
    while (performance.now() - wall < Number(ms));
    const used = process.cpuUsage(before);
    return String((used.user + used.system) / 1000 / (performance.now() - wall));
  },

  /** Takes memory, and keeps it. */
  '/eat'({mib}) {
    state.eaten = Buffer.alloc(Number(mib) << 20, 1);
    return 'eaten';
  },

  /** Changes what probes see. */
  '/set'(query) {
    for (const [name, value] of Object.entries(query)) {
      state[name] = value === 'true';
    }
    return os.hostname();
  },
};
