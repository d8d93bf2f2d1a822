// metrics.ts - what GET /metrics tells, in the Prometheus text format.
//
// Requests are counted in plain arrays, one meter a route: prom-client hashes its labels at every increment, which is
// too much for something that happens a hundred thousand times a second.
import { collectDefaultMetrics, Registry } from "prom-client";
import type { LifecycleView } from "./lifecycle-view.js";
import type { Store } from "./store/store.js";

/** Upper bounds in seconds. */
const buckets = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];

/**
 * The time, read at most once an event loop turn: what a request takes is told in buckets of half a millisecond and more,
 * and two readings for each request would cost more than looking its route up.
 */
class Clock {
  private read = 0;
  private fresh = false;

  /** Milliseconds. */
  now(): number {
    if (!this.fresh) {
      this.fresh = true;
      this.read = performance.now();
      setImmediate(this.stale);
    }
    return this.read;
  }

  private readonly stale = () => {
    this.fresh = false;
  };
}

export const clock = new Clock();

/** Requests of one route. */
export class Meter {
  readonly statuses = new Map<number, number>();
  readonly counts = new Array<number>(buckets.length + 1).fill(0);
  seconds = 0;

  constructor(
    readonly method: string,
    readonly route: string,
  ) {}

  observe(status: number, seconds: number): void {
    this.statuses.set(status, (this.statuses.get(status) ?? 0) + 1);
    let bucket = 0;
    while (bucket < buckets.length && seconds > buckets[bucket]!) bucket++;
    this.counts[bucket]!++;
    this.seconds += seconds;
  }
}

export class Metrics {
  private readonly registry = new Registry();
  private readonly meters: Meter[] = [];
  private readonly gauges: (() => string[])[] = [];

  constructor() {
    collectDefaultMetrics({ register: this.registry });
  }

  meter(method: string, route: string): Meter {
    const meter = new Meter(method, route);
    this.meters.push(meter);
    return meter;
  }

  gauge(name: string, help: string, read: () => number): void {
    this.gauges.push(() => gauge(name, help, read()));
  }

  async text(store: Store | undefined, lifecycle: LifecycleView): Promise<string> {
    const ofStore = store === undefined ? [] : storeLines(store);
    const ofParts = this.gauges.flatMap((lines) => lines());
    const own = [...this.requestLines(), ...lifecycleLines(lifecycle), ...ofStore, ...ofParts];
    return `${own.join("\n")}\n${lifecycle.metricsText?.() ?? ""}${await this.registry.metrics()}`;
  }

  private requestLines(): string[] {
    const used = this.meters.filter((meter) => meter.statuses.size > 0);
    const requests = used.flatMap((meter) =>
      [...meter.statuses].map(([status, count]) =>
        sample("http_requests_total", { ...labelsOf(meter), status }, count),
      ),
    );
    const durations = used.flatMap((meter) => {
      const labels = labelsOf(meter);
      let below = 0;
      const lines = meter.counts.map((count, index) => {
        below += count;
        return sample("http_request_seconds_bucket", { ...labels, le: buckets[index] ?? "+Inf" }, below);
      });
      return [
        ...lines,
        sample("http_request_seconds_sum", labels, meter.seconds),
        sample("http_request_seconds_count", labels, below),
      ];
    });
    return [
      ...head("http_requests_total", "counter", "Requests by route and status."),
      ...requests,
      ...head("http_request_seconds", "histogram", "Time from a request's head to the end of its answer."),
      ...durations,
    ];
  }
}

function lifecycleLines(lifecycle: LifecycleView): string[] {
  return [
    ...gauge("lifecycle_state", "1 for the state that the process is in.", 1, { state: lifecycle.state() }),
    ...gauge("requests_in_flight", "Requests that were let in and are not answered to the end.", lifecycle.inFlight()),
    ...gauge("gate_depth", "Batches inside a critical section.", lifecycle.gateDepth()),
  ];
}

function storeLines(store: Store): string[] {
  const status = store.status();
  const infos = store.names().flatMap((name) => store.info(name) ?? []);
  const counter = (name: string, help: string, value: number) => [
    ...head(name, "counter", help),
    sample(name, {}, value),
  ];
  return [
    ...gauge("regions", "Regions.", infos.length),
    ...gauge("regions_faulted", "Regions that refuse writes.", infos.filter(({ state }) => state === "faulted").length),
    ...gauge(
      "regions_unverified",
      "Regions of durability fast that lived through an unclean restart of the machine.",
      infos.filter(({ integrity }) => integrity === "unverified").length,
    ),
    ...gauge(
      "region_bytes",
      "Sizes of all regions together.",
      infos.reduce((sum, { size }) => sum + size, 0),
    ),
    ...gauge("journal_bytes", "Size of the journal.", status.journalBytes),
    ...gauge("journal_used_bytes", "Journal that the last checkpoint has not freed.", status.journalUsedBytes),
    ...gauge("idempotency_keys", "Outcomes that are kept for retries.", status.idempotencyKeys),
    ...gauge("recovery_redone_records", "Records that the last recovery applied again.", status.recovery.redone),
    ...gauge("recovery_seconds", "Time that the last recovery took.", status.recovery.ms / 1000),
    ...counter("commits_total", "Batches that were committed.", status.commits),
    ...counter("flushes_total", "Times that the journal was made durable.", status.flushes),
    ...counter("checkpoints_total", "Checkpoints.", status.checkpoints),
    ...counter("faults_caught_total", "SIGBUS that became an error of a region.", status.faultsCaught),
    ...counter("committed_records", "Last committed record.", status.committed),
    ...counter("durable_records", "Last durable record.", status.durable),
  ];
}

const labelsOf = ({ method, route }: Meter) => ({ method, route });

function gauge(name: string, help: string, value: number, labels: Record<string, string> = {}): string[] {
  return [...head(name, "gauge", help), sample(name, labels, value)];
}

function head(name: string, type: string, help: string): string[] {
  return [`# HELP holdfast_${name} ${help}`, `# TYPE holdfast_${name} ${type}`];
}

/** Label values here are names of routes, methods and states: nothing in them needs escaping. */
function sample(name: string, labels: Record<string, string | number>, value: number): string {
  const pairs = Object.entries(labels).map(([label, text]) => `${label}="${text}"`);
  return `holdfast_${name}${pairs.length === 0 ? "" : `{${pairs.join(",")}}`} ${value}`;
}
