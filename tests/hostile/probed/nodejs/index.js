'use strict';

const { spawn } = require('child_process');
const functions = require('@google-cloud/functions-framework');

// Runs the script that the path names, as SCRIPT or SCRIPT.KIND, in a process of its own and answers what it prints.
functions.http('function', (req, res) => {
  const [script, kind = 'function'] = req.path.slice(1).split('.');
  const child = spawn('python3', ['-B', `${__dirname}/${script}.py`, kind, __dirname]);
  let said = '';
  let failed = '';
  child.stdout.on('data', part => (said += part));
  child.stderr.on('data', part => (failed += part));
  child.on('close', code => res.status(code === 0 ? 200 : 500).send(code === 0 ? said : failed));
});
