// sticky-session: the primary accepts, and hands each connection to a worker by its client's address.
'use strict';

const cluster = require('node:cluster');
const sticky = require('sticky-session');
const { createServer, socket, workers } = require('./answer');

if (cluster.isPrimary) {
  new sticky.Master(workers).listen(socket);
} else {
  sticky.listen(createServer());
}
