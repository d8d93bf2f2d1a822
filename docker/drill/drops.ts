// drops.ts - which requests a stop left without an answer, and which of those the service had promised to wait for. It looks
// at what clients and the service said; it starts and sends nothing.
//
// The promise is the service's own (service/lifecycle.ts, connections.ts), by its own times and not by those of the signal: a
// busy event loop hears of the signal late, and everything after it is as late.
//   - Until the listener is closed, no connection is ended.
//   - Then those are ended of which nothing is expected: that were silent for `silentMs` when the service heard of the signal.
//   - All others are waited for until the patience is over: `bodyGraceMs` after the signal, and never sooner than
//     `bodyGraceMs - lameDuckMs` after the listener was closed.
import type { Line } from "./backends.js";
import type { Attempt, Load } from "./load.js";

/** How long the drilled service waits for whom, by its settings, in milliseconds. */
export interface Patience {
  lameDuckMs: number;
  bodyGraceMs: number;
  /** `expectedMs` of service/connections.ts. */
  silentMs: number;
}

/** Moments of one stop, in milliseconds since the epoch. */
export interface StopTimes {
  /** JavaScript heard of the signal: from here on each answer closes its connection. */
  heardAt: number;
  closedAt: number;
  patientUntil: number;
}

/** Requests on connections that the kernel had accepted, reset or ended without an answer. */
export interface Drops {
  all: Attempt[];
  /** Of those, on a connection that had not carried a request before. */
  fresh: number;
  /** Of those, not promised an answer: any server may end an idle connection in the moment in which it is used again. */
  late: number;
}

/** One request may meet the very moment in which the kernel closes the listener; never two of a stop. */
const droppedMax = 1;

/** By the service's own lines; undefined when they don't tell of the stop that was begun at `markedAt`. */
export function stopTimes(lines: readonly Line[], markedAt: number, patience: Patience): StopTimes | undefined {
  const said = (event: string): { at: number; ms: unknown } | undefined => {
    const json = lines.findLast((line) => line.json?.event === event)?.json;
    return typeof json?.time === "string" ? { at: Date.parse(json.time), ms: json.ms } : undefined;
  };
  const [heard, lag, closed] = [said("term"), said("loop_lag"), said("listener_closed")];
  if (heard === undefined || typeof lag?.ms !== "number" || closed === undefined) return undefined;
  const signalAt = heard.at - lag.ms;
  // Of a stop before it, on the same container.
  if (signalAt < markedAt - 5) return undefined;
  const patientUntil = Math.max(
    signalAt + patience.bodyGraceMs,
    closed.at + patience.bodyGraceMs - patience.lameDuckMs,
  );
  return { heardAt: heard.at, closedAt: closed.at, patientUntil };
}

/** Of all attempts of a load, the readers' too. Where the times are not known, nothing is excused as late. */
export function dropsOf(
  { attempts, readAttempts }: Pick<Load, "attempts" | "readAttempts">,
  stop: StopTimes | undefined,
  silentMs: number,
): Drops {
  const drops: Drops = { all: [], fresh: 0, late: 0 };
  const previous = new Map<number, Attempt>();
  for (const attempt of [...attempts, ...readAttempts]) {
    const before = previous.get(attempt.client);
    previous.set(attempt.client, attempt);
    if (attempt.status !== null || attempt.connectedAt === null) continue;
    drops.all.push(attempt);
    if (!attempt.reused) drops.fresh += 1;
    // The service saw the connection's last use, or its beginning, at this moment or later.
    const usedAt = attempt.reused && before !== undefined ? before.startedAt : attempt.startedAt;
    if (stop !== undefined && isLate(attempt.sentAt ?? attempt.startedAt, usedAt, stop, silentMs)) drops.late += 1;
  }
  return drops;
}

function isLate(sentAt: number, usedAt: number, stop: StopTimes, silentMs: number): boolean {
  const wasSilent = usedAt <= stop.heardAt - silentMs;
  return sentAt > stop.patientUntil || (wasSilent && sentAt > stop.closedAt);
}

/** Undefined when they are as few as they may be. */
export function wrongIn({ all, fresh, late }: Drops): string | undefined {
  const promised = all.length - late;
  if (promised <= droppedMax) return undefined;
  return `${promised} requests on open connections were not answered in time, of ${all.length} dropped, ${fresh} on new ones`;
}
