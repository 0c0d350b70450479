// Workers of flows of three levels, c under b under a: each parent reads its child's value, the rest is a no-op.
// node flow-worker.js '{"host", "port", "queues": ["a", "b", "c"], "concurrency"}'. Says "ready", ends with its standard input.
'use strict';
const { Worker } = require('bullmq');
const { host, port, queues, concurrency } = JSON.parse(process.argv[2]);

const leaf = async (job) => job.data;
const parent = async (job) => Object.values(await job.getChildrenValues())[0];
const workers = queues.map((queue, level) => {
  const processor = level === queues.length - 1 ? leaf : parent;
  const worker = new Worker(queue, processor, { connection: { host, port, maxRetriesPerRequest: null }, concurrency });
  return worker.on('error', (error) => console.error(error));
});
Promise.all(workers.map((worker) => worker.waitUntilReady())).then(() => console.log('ready'));
process.stdin.resume().on('end', () => Promise.all(workers.map((worker) => worker.close(true))).then(() => process.exit(0)));
