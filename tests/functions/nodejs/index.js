'use strict';

// The function that one table of requests tries in every language: one path a behaviour.

const crypto = require('node:crypto');
const {setTimeout} = require('node:timers/promises');
const busboy = require('busboy');
const functions = require('@google-cloud/functions-framework');

// The framework's own handler, installed when the server listens, runs after this one and ends the process.
process.on('SIGTERM', () => console.log('table: SIGTERM'));

/** Answers by the path. */
functions.http('table', (req, res) => {
  const answer = paths[req.path];
  return answer ? answer(req, res) : text(res).status(404).send('no such path\n');
});

/** Makes the answer plain text. */
function text(res) {
  return res.type('text/plain');
}

const paths = {
  /** Greets whoever is named, or the world. */
  '/hello'(req, res) {
    text(res).send(`Hello ${req.body?.name || req.query.name || 'World'}!`);
  },

  /** Says how long the body is, and its digest. */
  '/size'(req, res) {
    const body = req.rawBody ?? Buffer.alloc(0);
    res.json({bytes: body.length, sha256: crypto.createHash('sha256').update(body).digest('hex')});
  },

  /** Sends as many parts as asked for, one every 100 ms. */
  async '/stream'(req, res) {
    text(res);
    for (let number = 1; number <= Number(req.query.parts); number++) {
      if (number > 1) {
        await setTimeout(100);
      }
      res.write(`part ${number}\n`);
    }
    res.end();
  },

  /** Answers after the time asked for. */
  async '/slow'(req, res) {
    const ms = Number(req.query.ms);
    await setTimeout(ms);
    text(res).send(`slept ${ms} ms\n`);
  },

  /** Lets pages of any origin ask. */
  '/cors'(req, res) {
    res.set('Access-Control-Allow-Origin', '*');
    if (req.method === 'OPTIONS') {
      res.set('Access-Control-Allow-Methods', 'GET');
      res.set('Access-Control-Allow-Headers', 'Content-Type');
      res.set('Access-Control-Max-Age', '3600');
      res.status(204).end();
    } else {
      text(res).send('Hello World!');
    }
  },

  /** Says what a form brought: the framework has read the body, so it is parsed from there. */
  '/upload'(req, res) {
    const fields = {};
    const files = {};
    const form = busboy({headers: req.headers, defParamCharset: 'utf8'});
    form.on('field', (name, value) => {
      fields[name] ??= value;
    });
    form.on('file', (name, file, {filename}) => {
      files[name] = {filename, bytes: 0};
      file.on('data', part => {
        files[name].bytes += part.length;
      });
    });
    form.on('close', () => res.json({fields, files}));
    form.end(req.rawBody);
  },

  /** Says what a variable is set to. */
  '/environment'(req, res) {
    text(res).send(process.env[req.query.name] ?? '');
  },

  /** Says what arrived. */
  '/echo'(req, res) {
    const [, path, query] = /^([^?]*)\??(.*)$/s.exec(req.originalUrl);
    res.json({method: req.method, path, query, headers: req.headers, body: req.rawBody?.toString() ?? ''});
  },

  /** Fails. */
  '/fail'() {
    throw new Error('failed as asked');
  },

  /** Writes a line to stdout, and a structured one to stderr. */
  '/log'(req, res) {
    console.log(req.query.text);
    console.error(JSON.stringify({severity: 'WARNING', message: req.query.text}));
    text(res).send('ok');
  },
};

/** Data as JSON can hold it: what is no JSON arrives as bytes, and is written as text. */
function written(data) {
  return Buffer.isBuffer(data) ? data.toString() : data ?? null;
}

/** Writes down a CloudEvent. */
functions.cloudEvent('events', ({id, source, type, subject = null, time = null, data}) => {
  console.log(JSON.stringify({kind: 'cloudevent', id, source, type, subject, time, data: written(data)}));
});

/** Writes down an event of before CloudEvents. */
exports.legacy = (data, {eventId, timestamp, eventType, resource}) => {
  const line = {kind: 'event', id: eventId, timestamp, eventType, resource, data: written(data)};
  console.log(JSON.stringify(line));
};
