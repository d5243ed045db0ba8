// Socket.IO on every core as Node does it: @socket.io/sticky in the primary, the cluster adapter between workers.
'use strict';

const cluster = require('node:cluster');
const http = require('node:http');
const { setupMaster, setupWorker } = require('@socket.io/sticky');
const { createAdapter, setupPrimary } = require('@socket.io/cluster-adapter');
const { Server } = require('socket.io');

const workers = Number(process.env.WORKERS);

if (cluster.isPrimary) {
  const server = http.createServer();
  setupMaster(server, { loadBalancingMethod: 'round-robin' });
  setupPrimary();
  cluster.setupPrimary({ serialization: 'advanced' });
  let listening = 0;
  for (let worker = 0; worker < workers; worker += 1) {
    cluster.fork().on('message', (message) => {
      if (message !== 'ready' || ++listening < workers) return;
      server.listen(0, '127.0.0.1', () => console.error(`listening on http://127.0.0.1:${server.address().port}`));
    });
  }
  process.on('SIGTERM', () => process.exit(0));
} else {
  const server = http.createServer();
  const io = new Server(server);
  io.adapter(createAdapter());
  setupWorker(io);
  io.on('connection', (socket) => socket.on('broadcast', (sent) => io.emit('hello', sent)));
  process.send('ready');
  process.on('disconnect', () => process.exit(0));
}
