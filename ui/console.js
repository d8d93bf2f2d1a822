// console.js - puts the page together: asks for status, regions and the chosen region's changes, and shows them. It never
// writes to the service.
import { Client, Problem, Unreachable } from "./client.js";
import { DrainView } from "./drain.js";
import { Dump } from "./dump.js";
import { HeatMap } from "./heat-map.js";
import { Plot } from "./plot.js";

/** Plots have four samples a second; a stop of a second is seen as it happens. */
const statusMs = 250;
const regionsMs = 1000;
/** Squares tell what the page cache has; nothing tells when that changes. */
const slicesMs = 2000;
/** Regions that are listed; the prefix finds the others. */
const regionsMax = 200;
const rows = 24;
const batchesMax = 8;
/** How long a question about changes may wait for one. */
const changesWaitSeconds = 20;

/** @typedef {{ offset: number, length: number }} Range */
/** @typedef {{ generation: number, at: string, kind: string, ranges: Range[], durable: boolean }} Change */

/** @template {HTMLElement} [T=HTMLElement] @param {string} id @returns {T} */
const byId = (id) => /** @type {T} */ (document.getElementById(id));
const sleep = (/** @type {number} */ ms) => new Promise((resolve) => setTimeout(resolve, ms));
const number = (/** @type {number} */ value) => value.toLocaleString("en");

/** @param {number} bytes */
function bytesText(bytes) {
  const units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
  const unit = Math.min(units.length - 1, Math.floor(Math.log2(Math.max(1, bytes)) / 10));
  const value = bytes / 2 ** (10 * unit);
  return `${Number.isInteger(value) ? value : value.toFixed(1)} ${units[unit]}`;
}

/** @param {string} tag @param {string} text @param {string} [className] */
function element(tag, text, className = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  if (className !== "") made.className = className;
  return made;
}

const client = new Client(askToken);
const drain = new DrainView(byId("drain"), byId("drain-text"));
const dump = new Dump(byId("dump"));
const heat = new HeatMap(byId("heat-map"), (offset) => moveTo(offset));
const plots = {
  generation: new Plot(byId("plot-generation"), [{ color: "--durable", width: 4 }, { color: "--accent" }], "range"),
  journal: new Plot(byId("plot-journal"), [{ color: "--accent", fill: true }], "zero"),
  inFlight: new Plot(byId("plot-in-flight"), [{ color: "--accent", fill: true }], "zero"),
};

/** @type {any[]} */
let regions = [];
const noRegion = { name: "", size: 0, incarnation: "" };
/** The chosen region, and what ends when another is chosen. */
let chosen = { ...noRegion, leave: new AbortController() };
let offset = 0;
let columns = 16;

/** @param {boolean} refused @returns {Promise<string>} */
function askToken(refused) {
  const dialog = byId("ask");
  const input = byId("token");
  if (refused) byId("ask-text").textContent = "That token is not valid.";
  if (!(dialog instanceof HTMLDialogElement) || !(input instanceof HTMLInputElement)) throw new Error("no dialog");
  input.value = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(input.value), { once: true });
  });
}

// ---- status --------------------------------------------------------------------------------------------------------

async function watchStatus() {
  for (;;) {
    if (document.hidden) {
      await new Promise((resolve) => document.addEventListener("visibilitychange", resolve, { once: true }));
    }
    try {
      const status = await client.json("/v1/status");
      if (drain.isNext(status)) {
        await listRegions();
        drain.back(status, regions);
      } else {
        drain.told(status);
      }
      showStatus(status);
    } catch (error) {
      if (error instanceof Unreachable) {
        showState("stopped");
        drain.unreachable();
      } else if (!(error instanceof Problem)) {
        throw error;
      }
    }
    await sleep(statusMs);
  }
}

/** @param {string} state */
function showState(state) {
  const pill = byId("state");
  if (pill.textContent === state) return;
  pill.textContent = state;
  pill.dataset.state = state;
}

/** @param {any} status */
function showStatus({ state, inFlight, store }) {
  showState(state);
  plots.inFlight.add([inFlight]);
  byId("in-flight").textContent = number(inFlight);
  if (store.journal !== undefined) {
    const { usedBytes, bytes } = store.journal;
    plots.journal.add([usedBytes]);
    byId("journal").textContent = `${((100 * usedBytes) / bytes).toFixed(1)} % of ${bytesText(bytes)}`;
  }
  const region = regions.find(({ name }) => name === chosen.name);
  if (region !== undefined) plots.generation.add([region.durableGeneration, region.generation]);
}

// ---- regions -------------------------------------------------------------------------------------------------------

async function watchRegions() {
  for (;;) {
    if (!document.hidden) {
      try {
        await listRegions();
        drain.remember(regions);
      } catch (error) {
        // While it starts, stops or is gone, the status says so.
        if (!(error instanceof Unreachable) && !(error instanceof Problem)) throw error;
      }
    }
    await sleep(regionsMs);
  }
}

async function listRegions() {
  const prefix = /** @type {HTMLInputElement} */ (byId("prefix")).value;
  const query = new URLSearchParams({ limit: String(regionsMax), prefix });
  const { items, nextCursor } = await client.json(`/v1/regions?${query}`);
  regions = items;
  byId("region-count").textContent = `${regions.length}${nextCursor === null ? "" : " and more"}`;
  showRegions();
}

function showRegions() {
  const list = byId("region-list");
  const items = regions.map((region) => {
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.name = region.name;
    button.setAttribute("aria-pressed", String(region.name === chosen.name));
    const faulty = region.state !== "ok" || region.integrity !== "verified";
    const state = region.state !== "ok" ? region.state : region.integrity;
    button.append(
      element("span", region.name, "name"),
      element("span", faulty ? state : region.durability, faulty ? "tag bad" : `tag ${region.durability}`),
      element("span", bytesText(region.size), "size"),
      element("span", number(region.generation), "number"),
    );
    button.addEventListener("click", () => choose(region.name));
    const item = document.createElement("li");
    item.append(button);
    return item;
  });
  // The list is made anew each second; whoever goes through it by keyboard stays where they were.
  const focused = document.activeElement instanceof HTMLElement ? document.activeElement.dataset.name : undefined;
  list.replaceChildren(...items);
  if (focused !== undefined) {
    const again = [...list.querySelectorAll("button")].find((button) => button.dataset.name === focused);
    again?.focus({ preventScroll: true });
  }
  const empty = byId("empty");
  empty.hidden = regions.length > 0 || chosen.name !== "";
  empty.textContent = "No region yet: POST /v1/regions makes one, also from the page of the API.";
  if (chosen.name === "" && regions.length > 0) choose(regions[0].name);
  showFacts();
}

function showFacts() {
  const region = regions.find(({ name }) => name === chosen.name);
  if (region === undefined) return;
  byId("generation").textContent = number(region.generation);
  byId("durable").textContent = number(region.durableGeneration);
  const facts = {
    size: bytesText(region.size),
    durability: region.durability,
    state: region.fault === null ? region.state : `${region.state}: ${region.fault}`,
    integrity: region.integrity,
    ...(region.readOnly && { writes: "refused: read-only" }),
    ...(region.adopted && { file: "an operator's own" }),
    ...region.labels,
  };
  byId("facts").replaceChildren(
    ...Object.entries(facts).flatMap(([name, value]) => [element("dt", name), element("dd", value)]),
  );
  // Made again under the same name, or resized.
  const incarnation = region.etag.split(".")[0];
  if (region.size !== chosen.size || incarnation !== chosen.incarnation) choose(region.name);
}

// ---- the chosen region ---------------------------------------------------------------------------------------------

/** @param {string} name */
function choose(name) {
  const region = regions.find((candidate) => candidate.name === name);
  if (region === undefined) return;
  chosen.leave.abort();
  if (name !== chosen.name) {
    plots.generation.clear();
    offset = 0;
  }
  chosen = {
    name,
    size: region.size,
    incarnation: region.etag.split(".")[0],
    leave: new AbortController(),
  };
  // It may have shrunk.
  offset = Math.min(offset, lastLine());
  byId("region").hidden = false;
  byId("region-name").textContent = name;
  byId("batches").replaceChildren();
  heat.reset(region.size);
  for (const id of ["data-bytes", "resident-bytes"]) byId(id).textContent = "";
  showSquare();
  for (const button of byId("region-list").querySelectorAll("button")) {
    button.setAttribute("aria-pressed", String(button.dataset.name === name));
  }
  showFacts();
  void watchChanges();
  void watchSlices();
}

/** It is gone; the next list tells what can be chosen in its place. */
function chooseNone() {
  chosen.leave.abort();
  chosen = { ...noRegion, leave: new AbortController() };
  byId("region").hidden = true;
}

const windowLength = () => Math.max(0, Math.min(columns * rows, chosen.size - offset));

const lastLine = () => Math.max(0, Math.floor((chosen.size - 1) / columns) * columns);

/** @param {number} to */
function moveTo(to) {
  offset = Math.max(0, Math.min(lastLine(), to - (to % columns)));
  void showWindow().catch(elsewhere);
}

/** @returns {Promise<number>} the generation that is shown */
async function showWindow() {
  const { name, leave } = chosen;
  const at = offset;
  const { bytes, generation } = await client.bytes(name, at, windowLength(), leave.signal);
  if (at !== offset || leave.signal.aborted) return generation;
  dump.show(at, bytes, columns);
  heat.frame(at, bytes.length);
  showSquare();
  const input = /** @type {HTMLInputElement} */ (byId("offset"));
  if (document.activeElement !== input) input.value = `0x${at.toString(16)}`;
  byId("window-text").textContent =
    `${number(bytes.length)} of ${number(chosen.size)} bytes, generation ${number(generation)}`;
  return generation;
}

/** From one generation to the next, for as long as the region is chosen. */
async function watchChanges() {
  const { name, leave } = chosen;
  const { signal } = leave;
  /** @type {number | undefined} */
  let since;
  while (!signal.aborted) {
    try {
      since ??= await showWindow();
      const query = new URLSearchParams({ since: String(since), wait: String(changesWaitSeconds) });
      const asked = performance.now();
      const { items, next } = await client.json(`/v1/regions/${name}/changes?${query}`, signal);
      if (items.length > 0) await showChanges(items, signal);
      // A service that stops answers at once, as often as it is asked.
      else if (performance.now() - asked < regionsMs) await sleep(regionsMs);
      since = next;
    } catch (error) {
      if (signal.aborted) return;
      const code = error instanceof Problem ? error.code : "";
      // The feed has forgotten what came after `since`: begin again with what is there.
      if (code === "generation-compacted") since = undefined;
      else if (code === "region-not-found") return chooseNone();
      else if (error instanceof Unreachable || error instanceof Problem) await sleep(regionsMs);
      else throw error;
    }
  }
}

/** What of the region holds data and is in memory, again and again, for as long as it is chosen. */
async function watchSlices() {
  const { signal } = chosen.leave;
  while (!signal.aborted) {
    const asked = performance.now();
    try {
      if (!document.hidden) await showSlices(signal);
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof Unreachable) && !(error instanceof Problem)) throw error;
    }
    // A large region keeps a thread of the service busy for a tenth of the time at most.
    await sleep(Math.max(slicesMs, 9 * (performance.now() - asked)));
  }
}

/** @param {AbortSignal} signal */
async function showSlices(signal) {
  const { name } = chosen;
  const { granularity } = heat;
  const total = { data: 0, resident: 0 };
  /** @type {number | null} */
  let from = 0;
  while (from !== null) {
    const query = new URLSearchParams({ granularity: String(granularity), offset: String(from), limit: "1000" });
    const { items, nextOffset } = await client.json(`/v1/regions/${name}/extents?${query}`, signal);
    heat.tell(items);
    for (const { dataBytes, residentBytes } of items) {
      total.data += dataBytes;
      total.resident += residentBytes;
    }
    from = nextOffset;
  }
  byId("data-bytes").textContent = bytesText(total.data);
  byId("resident-bytes").textContent = bytesText(total.resident);
  showSquare();
}

/** The square that the pointer is on, or that the bytes below begin in, in words. */
function showSquare() {
  const { square } = heat;
  const text = [heat.about];
  if (square !== undefined) {
    const { offset: at, dataBytes, residentBytes, writtenMs } = square;
    const written = writtenMs === undefined ? "" : `, written ${Math.round(writtenMs / 1000)} s ago`;
    text.push(`0x${at.toString(16)}: ${bytesText(dataBytes)} of data, ${bytesText(residentBytes)} in memory${written}`);
  }
  byId("heat-text").textContent = text.join("; ");
}

/** @param {readonly Change[]} changes @param {AbortSignal} signal */
async function showChanges(changes, signal) {
  const written = changes.flatMap(({ ranges }) => ranges);
  for (const range of written) heat.mark(range.offset, range.length);
  const list = byId("batches");
  for (const { generation, kind, ranges } of changes.slice(-batchesMax)) {
    const places = ranges.slice(0, 3).map((range) => `0x${range.offset.toString(16)}+${range.length}`);
    const more = ranges.length > 3 ? ` and ${ranges.length - 3} more` : "";
    const item = element("li", "");
    item.append(element("b", number(generation)), ` ${kind} `, element("code", `${places.join(" ")}${more}`));
    list.prepend(item);
  }
  while (list.children.length > batchesMax) list.lastElementChild?.remove();
  // Of another size now: the list says so, and the region is shown from nothing.
  if (changes.some(({ kind }) => kind !== "batch")) await listRegions();
  if (signal.aborted) return;
  const at = offset;
  const { bytes, generation, durableGeneration } = await client.bytes(chosen.name, at, windowLength(), signal);
  const region = regions.find(({ name }) => name === chosen.name);
  // The list may be a second old.
  if (region !== undefined && generation > region.generation) Object.assign(region, { generation, durableGeneration });
  showFacts();
  if (at !== offset || signal.aborted) return;
  dump.update(bytes, written);
  byId("window-text").textContent =
    `${number(bytes.length)} of ${number(chosen.size)} bytes, generation ${number(generation)}`;
}

/** A request that was overtaken by another choice, or by a stop: the loops tell of it. @param {unknown} error */
function elsewhere(error) {
  const told = error instanceof Unreachable || error instanceof Problem;
  if (!told && !(error instanceof DOMException && error.name === "AbortError")) throw error;
}

// ---- what the person does ------------------------------------------------------------------------------------------

for (const kind of /** @type {const} */ (["pointermove", "pointerleave"])) {
  byId("heat-map").addEventListener(kind, showSquare);
}
byId("prefix").addEventListener("input", () => void listRegions().catch(elsewhere));
byId("previous").addEventListener("click", () => moveTo(offset - columns * rows));
byId("next").addEventListener("click", () => moveTo(offset + columns * rows));
byId("window").addEventListener("submit", (event) => {
  event.preventDefault();
  const wanted = Number(/** @type {HTMLInputElement} */ (byId("offset")).value);
  byId("offset").blur();
  if (Number.isSafeInteger(wanted)) moveTo(wanted);
});

const narrow = window.matchMedia("(max-width: 44rem)");
const setColumns = () => {
  columns = narrow.matches ? 8 : 16;
  if (chosen.name !== "") moveTo(offset);
};
narrow.addEventListener("change", setColumns);
columns = narrow.matches ? 8 : 16;
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  for (const plot of Object.values(plots)) plot.draw();
  heat.frame(offset, windowLength());
});

void watchStatus();
void watchRegions();
