// keep-tick-shape.ts - keeps process.nextTick() fast for the life of the process; imported right after the signals, for its effect.
//
// Each tick is an object literal with computed keys, which V8 runs fast only while it meets the hidden class that it met
// first. V8 holds that class weakly: a full garbage collection at a moment when no tick is queued drops it, the next tick
// gets a new one, and from then on every tick of the process takes the slow way, for a fifth of the time that a request
// needs (Node 20; `npm run bench` shows it). Whether that happens is an accident of the start. One tick that is kept for
// ever keeps the class.
import { createHook } from "node:async_hooks";

/** Held and never read. */
export let keptTick: object | undefined;

const hook = createHook({
  init(_asyncId, type, _trigger, resource) {
    if (type === "TickObject") keptTick = resource;
  },
}).enable();
process.nextTick(() => {});
hook.disable();
