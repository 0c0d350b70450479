// A BullMQ worker of no-op jobs: node worker.js '{"host", "port", "queue", "concurrency"}'. Says "ready", ends with its standard input.
'use strict';
const { Worker } = require('bullmq');
const { host, port, queue, concurrency } = JSON.parse(process.argv[2]);

const worker = new Worker(queue, async () => null, { connection: { host, port, maxRetriesPerRequest: null }, concurrency });
worker.on('error', (error) => console.error(error));
worker.waitUntilReady().then(() => console.log('ready'));
process.stdin.resume().on('end', () => worker.close(true).then(() => process.exit(0)));
