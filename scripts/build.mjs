// scripts/build.mjs - builds what is stale, and nothing else.
//
//   node scripts/build.mjs [release] [debug] [native] [ts] [programs] [fuzzers] [--force] [--keep-going]
//
// release, debug: the addon, into build/Release/holdfast.node and build/Release/holdfast_debug.node; native is both.
// ts: TypeScript into dist/. programs: the C++ test programs. fuzzers: those, where clang has libFuzzer. Nothing named: native and ts. --keep-going: type errors are
// told and end nothing; what generates types must run while those of today don't fit.
import { spawnSync } from "node:child_process";
import { copyFileSync, existsSync, mkdirSync, renameSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { dirname, join } from "node:path";
import { pathToFileURL } from "node:url";
import { at, exitConfig, fail, filesBelow, modifiedAt, root, run, say, withBuildLock, works } from "./tools.mjs";

const addons = { release: "holdfast", debug: "holdfast_debug" };
const tsFolders = ["service", "native", "openapi", "test", "docker"];
const tsStamp = "dist/.built";
const nativeLog = "build/native.log";

const addonPath = (kind) => `build/Release/${addons[kind]}.node`;
const newest = (files) => Math.max(0, ...files.map(modifiedAt));
const tsSources = () => tsFolders.flatMap((folder) => filesBelow(folder, (path) => path.endsWith(".ts")));

function addonIsStale(kind) {
  const sources = filesBelow("native", (path) => /\.(cc|h|gyp)$/.test(path) && dirname(path) === "native");
  return newest(sources) > modifiedAt(addonPath(kind));
}

// A compiled file whose source is gone: tap would go on running a test that was removed or renamed.
function orphans() {
  const made = filesBelow("dist", (path) => path.endsWith(".js") && tsFolders.includes(path.split("/")[1] ?? ""));
  return made.filter((path) => !existsSync(at(path.replace(/^dist\//, "").replace(/\.js$/, ".ts"))));
}

function tsIsStale() {
  return (
    newest([...tsSources(), "tsconfig.json", "tsconfig.client.json"]) > modifiedAt(tsStamp) || orphans().length > 0
  );
}

/** The targets among `wanted` that have to be built. Reads modification times only. */
export function stale(wanted) {
  return wanted.filter((target) => {
    if (target === "ts") return tsIsStale();
    return target === "programs" || target === "fuzzers" || addonIsStale(target);
  });
}

const compiler = () => process.env.CXX ?? "g++";

/** Exits with one clear sentence, in place of a page of node-gyp, when the machine can't build the addon. */
export function demandTools() {
  const aid = 'on Debian or Ubuntu "apt-get install g++ make python3" installs all that is needed';
  const cxx = compiler().split(" ");
  if (!works(cxx[0], ["--version"])) fail(`no C++ compiler: "${cxx[0]}" can't be run; ${aid}.`, exitConfig);
  if (!works(cxx[0], [...cxx.slice(1), "-std=gnu++20", "-fsyntax-only", "-x", "c++", "-"], "#include <bit>\n")) {
    fail(`the C++ compiler "${cxx[0]}" is too old for C++20 (g++ 10 or clang 12 and later will do).`, exitConfig);
  }
  if (!works("make", ["--version"])) fail(`"make" can't be run; ${aid}.`, exitConfig);
  const pythons = [process.env.npm_config_python, process.env.PYTHON, "python3", "python"].filter(Boolean);
  if (!pythons.some((python) => works(python, ["--version"]))) {
    fail(`no Python 3, which node-gyp needs to build the addon; ${aid}.`, exitConfig);
  }
}

// The headers of the Node that runs this, where its distribution brings them: no download, and never another Node's.
function headerOptions() {
  const prefix = dirname(dirname(process.execPath));
  return existsSync(join(prefix, "include/node/node_api.h")) ? [`--nodedir=${prefix}`] : [];
}

async function buildAddons(kinds) {
  demandTools();
  const targets = kinds.map((kind) => addons[kind]);
  say(`compiling the native addon (${kinds.join(", ")}); the log is ${nativeLog}`);
  const gyp = at("node_modules/node-gyp/bin/node-gyp.js");
  const jobs = process.env.JOBS ?? String(availableParallelism());
  const options = ["--directory=native", "--release", "--loglevel=error", ...headerOptions()];
  // Configured each time: the source list is read then, and a file may have come or gone.
  const steps = [["configure"], ["build", ...targets, `--jobs=${jobs}`]];
  let log = "";
  for (const step of steps) {
    // An old "nodedir" of npm's settings would win over the option and bring another Node's headers.
    const env = { ...process.env };
    if (headerOptions().length > 0) delete env.npm_config_nodedir;
    const done = spawnSync(process.execPath, [gyp, ...step, ...options], { cwd: root, env, encoding: "utf8" });
    log += `${done.stdout}${done.stderr}`;
    writeFileSync(at(nativeLog), log);
    if (done.status !== 0) {
      process.stderr.write(`${log.split("\n").slice(-60).join("\n")}\n`);
      fail(`the native addon could not be compiled; the log is ${nativeLog}`);
    }
  }
  for (const line of log.split("\n")) if (line.includes("warning:")) process.stderr.write(`${line}\n`);
  mkdirSync(at("build/Release"), { recursive: true });
  for (const kind of kinds) {
    // Put in place by rename: a running service has the old file mapped, and bytes changed under it would crash it.
    const path = at(addonPath(kind));
    copyFileSync(at(`native/build/Release/${addons[kind]}.node`), `${path}.new`);
    renameSync(`${path}.new`, path);
  }
}

async function buildTs(keepGoing) {
  say("compiling TypeScript into dist/");
  for (const path of orphans()) {
    rmSync(at(path));
    rmSync(at(`${path}.map`), { force: true });
  }
  // Before the compiler reads: a source saved while it works is newer than the stamp, so stale.
  const startedAt = new Date();
  const tsc = (project) =>
    run(process.execPath, [at("node_modules/typescript/bin/tsc"), "--pretty", "false", "--project", project]);
  const codes = [await tsc("tsconfig.json"), await tsc("tsconfig.client.json")];
  if (codes.some((code) => code !== 0)) {
    rmSync(at(tsStamp), { force: true });
    if (keepGoing) return say("TypeScript does not compile (above); going on with what it gave");
    fail("TypeScript does not compile (above).");
  }
  writeFileSync(at(tsStamp), `${startedAt.toISOString()}\n`);
  utimesSync(at(tsStamp), startedAt, startedAt);
}

async function makePrograms(...variants) {
  const jobs = process.env.JOBS ?? String(availableParallelism());
  const code = await run("make", ["--silent", "--no-print-directory", "-C", "test/native", `-j${jobs}`, ...variants]);
  if (code !== 0) fail(`${variants.join(", ")}: the native test programs could not be compiled (above).`);
}

async function buildPrograms() {
  demandTools();
  say("compiling the native test programs");
  await makePrograms("debug", "release", "asan", "tsan/store_threads_test");
}

async function buildFuzzers() {
  const input = 'extern "C" int LLVMFuzzerTestOneInput(const unsigned char*, unsigned long) { return 0; }\n';
  if (!works("clang++", ["-fsanitize=fuzzer,address,undefined", "-x", "c++", "-o", "/dev/null", "-"], input))
    return say("no clang++ with libFuzzer: the fuzzers are left out");
  say("compiling the fuzzers");
  await makePrograms("fuzz");
}

/** Builds the targets that are stale; exits with one sentence when that can't be done. */
export async function build(wanted, { force = false, keepGoing = false } = {}) {
  if ((force ? wanted : stale(wanted)).length === 0) return;
  await withBuildLock(async () => {
    // Asked again: whoever held the lock may have built it.
    const targets = force ? wanted : stale(wanted);
    const kinds = targets.filter((target) => target in addons);
    if (kinds.length > 0) await buildAddons(kinds);
    if (targets.includes("ts")) await buildTs(keepGoing);
    if (targets.includes("programs")) await buildPrograms();
    if (targets.includes("fuzzers")) await buildFuzzers();
  });
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  const words = process.argv.slice(2);
  const force = words.includes("--force");
  const keepGoing = words.includes("--keep-going");
  const targets = new Set();
  for (const word of words.filter((word) => word !== "--force" && word !== "--keep-going")) {
    if (word === "native") targets.add("release").add("debug");
    else if (["release", "debug", "ts", "programs", "fuzzers"].includes(word)) targets.add(word);
    else fail(`unknown build target "${word}": release, debug, native, ts, programs, fuzzers`, 64);
  }
  if (!existsSync(at("node_modules/.package-lock.json"))) fail('nothing is installed yet: run "npm ci" first.');
  if (targets.size === 0) targets.add("release").add("debug").add("ts");
  await build([...targets], { force, keepGoing });
}
