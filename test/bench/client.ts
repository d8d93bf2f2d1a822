// test/bench/client.ts - the client where wrk is not installed: autocannon in a process of its own, so that it can be
// pinned to its core. Prints what wrk.lua prints. It needs more processor time for each request than wrk does.
//
//   node client.js PORT CONNECTIONS SECONDS CASE SEED
import autocannon from "autocannon";
import { cases, requestsOf } from "./cases.js";

const [port, connections, seconds, name, seed] = process.argv.slice(2);
const work = cases.find((one) => one.name === name)!;

const run = await autocannon({
  url: `http://127.0.0.1:${port}`,
  connections: Number(connections),
  duration: Number(seconds),
  requests: requestsOf(work, Number(seed)),
});
process.stdout.write(
  `${JSON.stringify({
    requests: run["2xx"],
    seconds: run.duration,
    p50Us: run.latency.p50 * 1000,
    p99Us: run.latency.p99 * 1000,
    badStatuses: run.non2xx,
    brokenConnections: run.errors,
  })}\n`,
);
