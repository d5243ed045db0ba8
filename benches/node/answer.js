// What every worker answers: the bytes of src/program.rs, but for the case of the headers' names.
'use strict';

const cluster = require('node:cluster');
const http = require('node:http');

// A server for a worker; `before` sees each request first.
exports.createServer = (before) => {
  const worker = String(cluster.worker.id - 1);
  return http.createServer((request, response) => {
    before?.(request);
    // Node would say that it keeps the connection, and for how long; the other programs do not.
    if (!response.hasHeader('connection')) response.removeHeader('connection');
    response.writeHead(200, {
      'x-worker': worker,
      'content-type': 'text/plain; charset=utf-8',
      'content-length': '6',
    });
    response.end('hello\n');
  });
};

// How many workers there should be, and the inherited socket that is the public one.
exports.workers = Number(process.env.BENCH_WORKERS);
exports.socket = { fd: Number(process.env.BENCH_LISTENER) };
