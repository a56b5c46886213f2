'use strict';

const functions = require('@google-cloud/functions-framework');

/** Answers "Hello NAME!" with the name from the JSON body, else from the query, else "World". */
functions.http('helloHttp', (req, res) => {
  const name = req.body?.name ?? req.query.name ?? 'World';
  res.type('text/plain').send(`Hello ${name}!`);
});
