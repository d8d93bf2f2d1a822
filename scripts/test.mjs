// scripts/test.mjs - `npm test [-- PATTERN...]`: builds everything, runs the tests, ends with `N passed, N failed`.
//
// A pattern is part of a test file's path; nothing named: all of them. HOLDFAST_SEED=N repeats what was drawn. The tests
// load the debug addon, so assertions and fail points are in. The whole TAP output is in build/test.tap; here come one line
// for each file, the comments of the tests (seeds, counts, times) and what failed.
import { spawn } from "node:child_process";
import { randomInt } from "node:crypto";
import { createWriteStream, existsSync, readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { build } from "./build.mjs";
import { at, fail, filesBelow, root, run, say } from "./tools.mjs";

// Two at a time: what computes, or waits, without an eye on the clock. All others kill, stop and time processes.
const parallel = [
  "dist/test/unit/",
  "dist/test/http/",
  "dist/test/model/",
  "dist/test/fuzz/",
  "dist/test/crash/injected-faults.",
  "dist/test/crash/mutants.",
  "dist/test/crash/page-versions.",
  "dist/test/crash/single-step.",
];

if (!existsSync(at("node_modules/.package-lock.json"))) fail('nothing is installed yet: run "npm ci" first.');

// tap generates its test class from its plugins. As installed it holds the TypeScript loader that .taprc turns off.
const tapClass = "node_modules/@tapjs/test/test-built/dist/esm/index.js";
const tap = at("node_modules/tap/dist/esm/run.mjs");
if (!existsSync(at(tapClass)) || readFileSync(at(tapClass), "utf8").includes("@tapjs/typescript")) {
  say("generating tap's test class for the plugins of .taprc, once");
  if ((await run(process.execPath, [tap, "build"])) !== 0) fail('"tap build" failed (above).');
}
await build(["release", "debug", "ts", "programs", "fuzzers"]);

const patterns = process.argv.slice(2);
const files = filesBelow("dist/test", (path) => path.endsWith(".test.js")).sort();
const chosen = files.filter((path) => patterns.length === 0 || patterns.some((pattern) => path.includes(pattern)));
const isParallel = (path) => parallel.some((start) => path.startsWith(start));

// One number for all of them repeats the whole run; test/seed.ts and test/native/check.h read it.
const seed = process.env.HOLDFAST_SEED ?? String(randomInt(2 ** 31));
say(`HOLDFAST_SEED=${seed}`);

const totals = { pass: 0, fail: 0, skip: 0 };
const record = createWriteStream(at("build/test.tap"));

// Of one file's TAP: each failed point with its diagnostics.
function failuresOf(lines) {
  const shown = [];
  let showing = false;
  for (const line of lines) {
    if (/^\s+not ok /.test(line)) showing = true;
    else if (/^\s+(ok \d|\d+\.\.\d|# Subtest)/.test(line)) showing = false;
    if (showing && line.trim() !== "") shown.push(line);
  }
  return shown.length > 0 ? shown : lines.slice(-40);
}

async function runTap(paths, jobs) {
  if (paths.length === 0) return;
  const child = spawn(process.execPath, [tap, "--reporter=tap", `--jobs=${jobs}`, ...paths], {
    cwd: root,
    env: { ...process.env, HOLDFAST_NATIVE: "debug", HOLDFAST_SEED: seed },
    stdio: ["ignore", "pipe", "inherit"],
  });
  const exited = new Promise((resolve) => child.on("exit", (code) => resolve(code ?? 1)));
  let block = [];
  let summed = false;
  let failed = 0;
  for await (const line of createInterface({ input: child.stdout })) {
    record.write(`${line}\n`);
    const sum = /^# (\{ total: .* \})$/.exec(line);
    if (sum) {
      summed = true;
      for (const [, name, count] of sum[1].matchAll(/(\w+): (\d+)/g)) {
        if (name in totals) totals[name] += Number(count);
        if (name === "todo") totals.skip += Number(count);
        if (name === "fail") failed += Number(count);
      }
    }
    const ended = /^(not ok|ok) \d+ - (\S+)(?: # time=([\d.]+)(ms|s))?/.exec(line);
    if (ended) {
      const seconds = Number(ended[3] ?? 0) / (ended[4] === "ms" ? 1000 : 1);
      const name = ended[2].replace(/^dist\//, "").replace(/\.js$/, "");
      console.log(`${ended[1] === "ok" ? "ok    " : "FAILED"} ${name} (${seconds.toFixed(1)} s)`);
      for (const comment of block.filter((text) => /^\s+# (?!Subtest|time=)/.test(text))) {
        console.log(`         ${comment.trim()}`);
      }
      if (ended[1] !== "ok") console.log(failuresOf(block).join("\n"));
      block = [];
    } else {
      block.push(line);
    }
  }
  const code = await exited;
  // A runner that died before its totals, or is unhappy for a reason that no point shows, is a failure of its own.
  if (!summed || (code !== 0 && failed === 0)) {
    console.log(`FAILED tap exited ${code}${summed ? "" : " without its totals"}; the output is build/test.tap`);
    totals.fail += 1;
  }
}

await runTap(chosen.filter(isParallel), 2);
await runTap(
  chosen.filter((path) => !isParallel(path)),
  1,
);
record.end();

if (totals.pass + totals.fail === 0) {
  say(chosen.length === 0 ? `no test file matches ${patterns.join(" ")}` : "no test ran");
  totals.fail += 1;
}
// A test that skips on a developer's machine says why; in CI everything it needs is there.
if (process.env.CI && totals.skip > 0) {
  console.log(`FAILED ${totals.skip} skipped in CI, where nothing may be; see build/test.tap`);
  totals.fail += totals.skip;
  totals.skip = 0;
}
console.log(`${totals.pass} passed, ${totals.fail} failed${totals.skip > 0 ? `, ${totals.skip} skipped` : ""}`);
process.exitCode = totals.fail > 0 ? 1 : 0;
