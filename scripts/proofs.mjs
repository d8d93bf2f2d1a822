// scripts/proofs.mjs - a proof at length, and its figures: into test/proofs.json, and from there into README's table.
//
//   npm run proofs                        lists them
//   npm run proofs -- all                 each, one after the other: half an hour
//   npm run proofs -- NAME --long         one at the length of the longest run there was: up to an hour
//   npm run proofs -- NAME [OPTION...]    one; its own options (--help) in the place of the usual ones, for a look
import { spawn } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { cpus, release as kernel } from "node:os";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";
import { build } from "./build.mjs";
import { at, fail, root, say } from "./tools.mjs";

const rig = (name, ...options) => ({ command: [at("build/test-native/release", name)], options });
const test = (name, ...options) => ({ command: [process.execPath, at("dist/test", `${name}.test.js`)], options });

/** What is promised, how that is tested, what is counted, and what runs it. */
export const proofs = {
  "single-step": {
    promise: "no kill tears a batch",
    how: "a kill at every machine instruction of commits, flushes, checkpoints, changes of regions, snapshots, closes and recoveries: the files are copied after each one that changed a byte, recovered by the real code, and judged",
    counted: { points: "kill points", states: "different states" },
    ...rig("single_step", "--points=3000000"),
    long: ["--points=10000000"],
  },
  "node-step": {
    promise: "nor inside of Node",
    how: "the same for batches over HTTP: each thread of a service is single-stepped through the addon's commits, flushes and checkpoints, as Node has loaded it",
    counted: { points: "kill points", states: "states" },
    ...test("crash/node-step", "--points=300000"),
  },
  kills: {
    promise: "nor through HTTP",
    how: "SIGKILLs under eight clients with a ledger outside of the service: every answered batch there, the others whole or absent, retries with their key exactly once",
    counted: {
      kills: "kills",
      "before publish": "before publish",
      "between publish and apply": "between publish and apply",
      "between apply and answer": "between apply and answer",
      "in recovery": "in recovery",
      "in a start": "elsewhere in a start",
      "in a checkpoint": "of all in a checkpoint",
    },
    ...test("crash/kill", "--kills=400"),
    long: ["--kills=10000"],
  },
  "power-cuts": {
    promise: "nor a power cut",
    how: "a FUSE disk with a volatile cache, a loop device, ext4 and xfs; a cut keeps a random part of what was not flushed, also in recoveries and around orderly ends. Controls that must fail: no barriers, apply before the sync",
    counted: { cuts: "cuts" },
    ...rig("power_cut", "--cuts=1000"),
    long: ["--cuts=10000"],
  },
  "page-versions": {
    promise: "nor a disk that writes pages in any order",
    how: "every store and every sync of a run is recorded; what a power cut may leave is built: each page at any version since its last sync, some torn at 512 bytes, also in recoveries; no privileges",
    counted: { states: "states" },
    ...rig("page_versions", "--states=10000"),
    long: ["--states=1000000", "--each=100"],
  },
  models: {
    promise: "no order of events breaks the protocol",
    how: "the gate, and publish, apply, checkpoint and recovery with kills and power cuts, in Promela: every state, by spin",
    counted: { states: "states" },
    ...test("model/model"),
  },
  "http-model": {
    promise: "a batch does what it says",
    how: "random batches of one region, of every operation and overflow policy, with guards of generations, values and bytes, over HTTP and in a plain model in memory: the same answers, refusals and bytes, in each durability",
    counted: { batches: "batches" },
    ...test("http/model", "--runs=1000"),
  },
  "http-inputs": {
    promise: "no request is answered by a 5xx",
    how: "each operation of openapi.json with inputs made from its schemas, and with the same ones spoilt; each answer is held against the document",
    counted: { inputs: "inputs" },
    ...test("http/fuzz", "--runs=600"),
  },
  fuzz: {
    promise: "no bytes do harm",
    how: "libFuzzer, under AddressSanitizer: frames of batches, and the files of a store that is opened, checked and opened again",
    counted: { inputs: "inputs" },
    ...test("fuzz/fuzz", "--seconds=60"),
  },
};

const path = at("test/proofs.json");
const begin = "<!-- what follows is written by `npm run proofs`, from test/proofs.json -->";
const end = "<!-- what is before is written by `npm run proofs` -->";

export const readFigures = () => JSON.parse(readFileSync(path, "utf8"));

/** README's text with the figures in the place of those that it has. */
export function withTable(readme, figures) {
  const from = readme.indexOf(begin);
  const to = readme.indexOf(end);
  if (from < 0 || to < from) fail("README.md has lost the marks around the table of proofs");
  const known = Object.entries(proofs).filter(([name]) => figures[name] !== undefined);
  const rows = known.map(([name, { promise, how, counted }]) => {
    const of = figures[name];
    const counts = Object.entries(counted).map(([member, words]) => `${of[member].toLocaleString("en-US")} ${words}`);
    return `| ${promise} | ${how} | ${counts.join(", ")}: ${of.failures} failures | \`npm run proofs -- ${name}${of.long ? " --long" : ""}\` |`;
  });
  const head = ["| promise | how it is tested | counted | command |", "|---|---|---|---|"];
  return `${readme.slice(0, from)}${[begin, ...head, ...rows, end].join("\n")}${readme.slice(to + end.length)}`;
}

/** Runs a proof and returns its figures, those of its parts added up; undefined if it failed. */
async function prove(name, options) {
  const { command, counted } = proofs[name];
  const [program, ...first] = command;
  const child = spawn(program, [...first, ...options], {
    cwd: root,
    env: { ...process.env, TAP: "1", HOLDFAST_NATIVE: process.env.HOLDFAST_NATIVE ?? "release" },
    stdio: ["ignore", "pipe", "inherit"],
  });
  const ended = new Promise((resolve) => child.on("close", (code) => resolve(code ?? 1)));
  const sums = {};
  for await (const line of createInterface({ input: child.stdout })) {
    console.log(line);
    const found = /figures: (\{.*\})/.exec(line);
    if (found === null) continue;
    const figures = JSON.parse(found[1]);
    for (const member of [...Object.keys(counted), "failures"]) {
      sums[member] = (sums[member] ?? 0) + (figures[member] ?? 0);
    }
  }
  return (await ended) === 0 && sums.failures === 0 ? sums : undefined;
}

function note(name, sums, long) {
  const date = new Date().toISOString().slice(0, 10);
  const machine = `${cpus()[0]?.model.trim()}, ${cpus().length} cores, Linux ${kernel()}, Node ${process.versions.node}`;
  const all = { ...readFigures(), [name]: { ...sums, ...(long && { long }), date, machine } };
  const ordered = Object.fromEntries(Object.keys(proofs).flatMap((key) => (all[key] ? [[key, all[key]]] : [])));
  writeFileSync(path, `${JSON.stringify(ordered, null, 2)}\n`);
  writeFileSync(at("README.md"), withTable(readFileSync(at("README.md"), "utf8"), ordered));
}

async function main([wanted, ...given]) {
  if (wanted === undefined || wanted === "--help") {
    for (const [name, { promise, options }] of Object.entries(proofs)) {
      console.log(`${name.padEnd(14)} ${promise} ${options.join(" ")}`);
    }
    return 0;
  }
  const names = wanted === "all" ? Object.keys(proofs) : [wanted];
  if (names.some((name) => proofs[name] === undefined)) {
    fail(`there is no proof "${wanted}", but ${Object.keys(proofs).join(", ")} and all`, 64);
  }
  const long = given.length === 1 && given[0] === "--long";
  if (long && names.some((name) => proofs[name].long === undefined)) {
    const able = Object.keys(proofs).filter((name) => proofs[name].long !== undefined);
    fail(`--long is for ${able.join(" and ")}`, 64);
  }
  await build(["release", "debug", "ts", "programs", "fuzzers"]);
  let failed = 0;
  for (const name of names) {
    const { options, long: longest } = proofs[name];
    const sums = await prove(name, long ? longest : given.length > 0 ? given : options);
    // Options are for a look: what the table says is what its command counts.
    if (sums === undefined) failed++;
    else if (long || given.length === 0) note(name, sums, long);
  }
  if (failed > 0) say(`${failed} failed; their figures are left as they were`);
  return failed > 0 ? 1 : 0;
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) process.exitCode = await main(process.argv.slice(2));
