'use strict';

const functions = require('@google-cloud/functions-framework');

/** Greets a person: the framework turns JSON into the argument, and what is returned into JSON. */
functions.typed('typed', person => ({greeting: `Hello ${person.name}!`}));
