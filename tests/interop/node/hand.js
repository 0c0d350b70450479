// One Node process at the tests' hand: takes commands as JSON lines on stdin, answers and signals as JSON lines on stdout.
// usage: node hand.js <5|6> <host:port>; ends when stdin does.
'use strict';
const readline = require('node:readline');

const [major, address] = process.argv.slice(2);
const { Queue, Worker, QueueEvents, UnrecoverableError } = require(major === '5' ? 'bullmq5' : 'bullmq');
const [host, port] = address.split(':');
const connection = { host, port: Number(port), maxRetriesPerRequest: null };
const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
const open = { queues: new Map(), workers: [], events: [] };

function queue(name) {
  if (!open.queues.has(name)) open.queues.set(name, new Queue(name, { connection }));
  return open.queues.get(name);
}

// What a job asks for: `ms` to take, `fail` to throw that, `fatal` to throw it for good, `remove` itself once it has ended, `result` to return.
async function process_(job) {
  say({ signal: 'began', queue: job.queueName, id: job.id, name: job.name, attempt: job.attemptsMade + 1, data: job.data });
  const asked = job.data ?? {};
  if (asked.ms) await new Promise((resolve) => setTimeout(resolve, asked.ms));
  if (asked.progress !== undefined) await job.updateProgress(asked.progress);
  if (asked.fatal) throw new UnrecoverableError(asked.fatal);
  if (asked.fail) throw new Error(asked.fail);
  return asked.result;
}

const commands = {
  async add({ queue: name, job, data, opts }) {
    return (await queue(name).add(job, data, opts)).id;
  },
  async bulk({ queue: name, jobs }) {
    return (await queue(name).addBulk(jobs)).map((job) => job.id);
  },
  async work({ queue: name, options }) {
    const worker = new Worker(name, process_, { connection, ...options });
    worker.on('completed', (job, result) => say({ signal: 'completed', queue: name, id: job.id, result }));
    worker.on('failed', (job, error) => say({ signal: 'failed', queue: name, id: job?.id, attempt: job?.attemptsMade, reason: error.message }));
    worker.on('error', (error) => process.stderr.write(`${error.stack}\n`));
    await worker.waitUntilReady();
    open.workers.push(worker);
  },
  async idle() {
    await Promise.all(open.workers.splice(0).map((worker) => worker.close()));
  },
  async watch({ queue: name }) {
    const events = new QueueEvents(name, { connection });
    for (const kind of ['completed', 'failed', 'paused', 'resumed', 'waiting', 'active', 'delayed', 'deduplicated', 'duplicated', 'removed']) {
      events.on(kind, (told) => say({ signal: `event ${kind}`, queue: name, id: told?.jobId }));
    }
    await events.waitUntilReady();
    open.events.push(events);
  },
  async pause({ queue: name }) {
    await queue(name).pause();
  },
  async resume({ queue: name }) {
    await queue(name).resume();
  },
  async counts({ queue: name }) {
    return queue(name).getJobCounts('wait', 'paused', 'active', 'completed', 'failed', 'delayed', 'prioritized');
  },
  async job({ queue: name, id }) {
    const job = await queue(name).getJob(id);
    return job ? { ...job.toJSON(), state: await job.getState() } : null;
  },
  async schedule({ queue: name, id, repeat, template }) {
    return (await queue(name).upsertJobScheduler(id, repeat, template))?.id;
  },
  async schedulers({ queue: name }) {
    return queue(name).getJobSchedulers();
  },
  async unschedule({ queue: name, id }) {
    return queue(name).removeJobScheduler(id);
  },
  // A route of Bull Board as its pages call it.
  async board({ queue: name, method, route, query, params }) {
    const { createBullBoard } = require('@bull-board/api');
    const { BullMQAdapter } = require('@bull-board/api/bullMQAdapter');
    let queues;
    let routes;
    const adapter = new Proxy({}, { get: (_, method) => (given) => {
      if (method === 'setQueues') queues = given;
      if (method === 'setApiRoutes') routes = given;
      return adapter;
    } });
    createBullBoard({ queues: [new BullMQAdapter(queue(name))], serverAdapter: adapter });
    const found = routes.find((one) => one.method === method && [one.route].flat().includes(route));
    return found.handler({ queues, query: query ?? {}, params: params ?? {}, body: {}, headers: {}, uiConfig: {} });
  },
};

readline.createInterface({ input: process.stdin }).on('line', async (line) => {
  const { re, command, ...given } = JSON.parse(line);
  try {
    say({ re, value: (await commands[command](given)) ?? null });
  } catch (error) {
    say({ re, error: error.stack });
  }
}).on('close', async () => {
  await Promise.all([...open.workers, ...open.events, ...open.queues.values()].map((one) => one.close()));
  process.exit(0);
});
say({ signal: 'ready', node: process.version });
