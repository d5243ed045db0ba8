// @socket.io/sticky: the primary reads a connection's first bytes and hands it to the worker that knows their `sid=`.
// The package keeps no connection for a second request: it has its worker close each one.
'use strict';

const cluster = require('node:cluster');
const { EventEmitter } = require('node:events');
const http = require('node:http');
const { setupPrimary, setupWorker } = require('@socket.io/sticky');
const { createServer, socket, workers } = require('./answer');

if (cluster.isPrimary) {
  cluster.setupPrimary({ serialization: 'advanced' });
  const server = http.createServer();
  setupPrimary(server);
  for (let worker = 0; worker < workers; worker += 1) cluster.fork();
  server.listen(socket);
} else {
  const sessions = new Set();
  const engine = new EventEmitter();
  // In the place of socket.io's server: a session opens with the first request that names it.
  const httpServer = createServer((request) => {
    const sid = request.url.split('sid=')[1];
    if (sid === undefined || sessions.has(sid)) return;
    sessions.add(sid);
    engine.emit('connection', Object.assign(new EventEmitter(), { id: sid }));
  });
  setupWorker({ httpServer, engine });
}
