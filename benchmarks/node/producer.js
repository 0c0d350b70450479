// Adds jobs or flows and says how long that took: node producer.js '{"host", "port", "how": "one" | "hundred" | "bulk" | "flows", "count",
// "warmup", "options", "queue" or "queues"}' prints {"seconds", "cpu"} (both of the adding alone).
'use strict';
const { FlowProducer, Queue } = require('bullmq');
const { host, port, how, count, warmup, options, queue: name, queues } = JSON.parse(process.argv[2]);
const connection = { host, port };
const data = (number) => ({ documentId: `doc-${number}`, userId: 'user-1', filename: 'report.pdf', mimeType: 'application/pdf', fileSize: 12345 });

async function inParts(total, size, add) {
  for (let from = 0; from < total; from += size) await add(from, Math.min(size, total - from));
}
const numbers = (from, size) => Array.from({ length: size }, (_, index) => from + index);

function adder() {
  if (how === 'flows') {
    const producer = new FlowProducer({ connection });
    const [a, b, c] = queues;
    const level = (queueName, number, children) => ({ name: 'do', queueName, data: data(number), opts: options, ...(children && { children }) });
    const flow = (number) => level(a, number, [level(b, number, [level(c, number)])]);
    return [producer, (total) => inParts(total, 200, (from, size) => producer.addBulk(numbers(from, size).map(flow)))];
  }
  const queue = new Queue(name, { connection, defaultJobOptions: options });
  const ways = {
    one: (total) => inParts(total, 1, (from) => queue.add('do', data(from))),
    hundred: (total) => inParts(total, 100, (from, size) => Promise.all(numbers(from, size).map((number) => queue.add('do', data(number))))),
    bulk: (total) => inParts(total, 1000, (from, size) => queue.addBulk(numbers(from, size).map((number) => ({ name: 'do', data: data(number) })))),
  };
  return [queue, ways[how]];
}

async function main() {
  const [client, add] = adder();
  client.on('error', (error) => console.error(error));
  await add(warmup);
  const [begun, used] = [process.hrtime.bigint(), process.cpuUsage()];
  await add(count);
  const cpu = process.cpuUsage(used);
  console.log(JSON.stringify({ seconds: Number(process.hrtime.bigint() - begun) / 1e9, cpu: (cpu.user + cpu.system) / 1e6 }));
  await client.close();
}

main().then(() => process.exit(0));
