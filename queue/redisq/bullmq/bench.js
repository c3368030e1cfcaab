// BullMQ's side of the benchmarks of this package's folder above:
//
//	node bench.js HOST PORT
//
// reads a command a line and answers each with a line of JSON:
//
//	enqueue N      adds N jobs one after the other: jobs a second
//	bulk N         adds N jobs with addBulk, 200 at a time: jobs a second
//	noop N C       runs N waiting jobs that do nothing, C at once: jobs a second
//	idle N         adds N jobs to a waiting worker, one by one: the list of ms from add to start
//	hold MS        takes the next job and never ends it (to be killed); answers when it has it
//	rescue MS      runs a worker that takes over; answers with the time (ms since 1970) when it has the job
import readline from "node:readline";
import { Queue, Worker } from "bullmq";

const connection = { host: process.argv[2], port: Number(process.argv[3]), maxRetriesPerRequest: null };
const queue = new Queue("bench", { connection });
const payload = { prompt: "x".repeat(280) };
const rate = (n, since) => (n * 1000) / (performance.now() - since);
const bulk = async (n) => {
  for (let i = 0; i < n; i += 200) {
    await queue.addBulk(Array.from({ length: Math.min(200, n - i) }, () => ({ name: "noop", data: payload })));
  }
};

const commands = {
  async enqueue(n) {
    const start = performance.now();
    for (let i = 0; i < n; i++) await queue.add("noop", payload);
    return rate(n, start);
  },
  async bulk(n) {
    const start = performance.now();
    await bulk(n);
    return rate(n, start);
  },
  async noop(n, concurrency) {
    await bulk(n);
    const worker = new Worker("bench", async () => {}, { connection, concurrency, autorun: false });
    await worker.waitUntilReady();
    const start = performance.now();
    const all = new Promise((resolve) => {
      let left = n;
      worker.on("completed", () => --left || resolve());
    });
    worker.run();
    await all;
    const result = rate(n, start);
    await worker.close();
    return result;
  },
  async idle(n) {
    let started;
    const worker = new Worker("bench", async () => started(performance.now()), { connection });
    await worker.waitUntilReady();
    const times = [];
    for (let i = 0; i < n; i++) {
      const at = new Promise((resolve) => (started = resolve));
      await new Promise((resolve) => setTimeout(resolve, 3));
      const start = performance.now();
      await queue.add("noop", payload);
      times.push((await at) - start);
    }
    await worker.close();
    return times;
  },
  hold(ms) {
    return new Promise((resolve) => {
      new Worker("bench", () => new Promise(() => resolve(Date.now())), { connection, lockDuration: ms, stalledInterval: ms });
    });
  },
  rescue(ms) {
    return new Promise((resolve) => {
      new Worker("bench", async () => resolve(Date.now()), { connection, lockDuration: ms, stalledInterval: ms });
    });
  },
};

await queue.waitUntilReady();
for await (const line of readline.createInterface({ input: process.stdin })) {
  const [name, ...args] = line.split(" ");
  console.log(JSON.stringify(await commands[name](...args.map(Number))));
}
process.exit(0);
