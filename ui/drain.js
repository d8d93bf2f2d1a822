// drain.js - a stop as it happens, the time nobody answers, and what the next run says about it.

const steps = ["ready", "lameduck", "draining", "stopped"];
const seconds = (/** @type {number} */ ms) => (ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`);

/** @typedef {{ name: string, generation: number, durability: string }} Seen */

export class DrainView {
  #section;
  #text;
  #state = "";
  #stopping = false;
  #goneSince = 0;
  /** When the run that was last heard of became the writer. @type {string | undefined} */
  #run;
  /** Each region as it was when the service was last heard of. @type {Map<string, Seen>} */
  #seen = new Map();

  /** @param {HTMLElement} section @param {HTMLElement} text */
  constructor(section, text) {
    this.#section = section;
    this.#text = text;
  }

  /**
   * What is told is of another run than what was told before.
   * @param {any} status of GET /v1/status
   */
  isNext(status) {
    const since = status.store.lease?.since;
    const isNext = this.#run !== undefined && since !== undefined && since !== this.#run;
    this.#run = since ?? this.#run;
    return isNext;
  }

  /** @param {readonly Seen[]} regions */
  remember(regions) {
    this.#seen = new Map(regions.map((region) => [region.name, region]));
  }

  /** @param {any} status of GET /v1/status */
  told(status) {
    const { state, inFlight, lifecycle } = status;
    this.#enter(state);
    const drain = lifecycle?.drain;
    if (drain === null || drain === undefined) return;
    this.#stopping = true;
    this.#say(
      `TERM ${seconds(drain.elapsedMs)} ago: ${inFlight} in flight, ${drain.answered} answered, ` +
        `${drain.refused} refused with 503, ${drain.cut} cut`,
    );
  }

  unreachable() {
    if (this.#goneSince === 0) {
      this.#goneSince = performance.now();
      this.#enter("stopped");
    }
    const how = this.#stopping ? "It said goodbye and stopped" : "Nobody answers, and nobody said goodbye";
    this.#say(
      `${how}. For ${seconds(performance.now() - this.#goneSince)} this page has been asking for the next run.`,
    );
  }

  /**
   * The next run answers.
   * @param {any} status of GET /v1/status
   * @param {readonly Seen[]} regions
   */
  back(status, regions) {
    const away = this.#goneSince === 0 ? "" : ` after ${seconds(performance.now() - this.#goneSince)}`;
    this.#goneSince = 0;
    this.#stopping = false;
    this.#enter(status.state);
    const behind = [...this.#seen.values()].filter(({ name, generation }) => {
      const now = regions.find((region) => region.name === name);
      return now !== undefined && now.generation < generation;
    });
    const kept =
      behind.length === 0
        ? "Every region is at the generation that was seen last, or later."
        : `Behind what was seen last: ${behind.map(({ name }) => name).join(", ")}.`;
    this.#say(`Back${away}. ${endOf(status)} ${kept}`);
    this.#section.hidden = false;
  }

  /** @param {string} state */
  #enter(state) {
    if (state === this.#state) return;
    this.#state = state;
    if (state !== "ready") this.#section.hidden = false;
    const at = steps.indexOf(state === "forced" ? "draining" : state);
    this.#section.querySelectorAll("li").forEach((step, index) => {
      step.classList.toggle("past", index < at);
      step.classList.toggle("now", index === at);
    });
  }

  /** @param {string} sentence */
  #say(sentence) {
    this.#text.textContent = sentence;
  }
}

/** @param {any} status @returns {string} how the run before this one ended */
function endOf({ lifecycle, store }) {
  const run = lifecycle?.previousRun;
  const redone = store?.recovery?.redone ?? 0;
  if (run?.state === "killed") return `The last run was killed; ${redone} records of its journal were applied again.`;
  if (run?.state === "ended") return `The last run ended with code ${run.code} after ${seconds(run.drainMs)}.`;
  return "";
}
