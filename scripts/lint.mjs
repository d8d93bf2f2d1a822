// scripts/lint.mjs - one command for both languages. `--fix` formats and repairs what can be repaired.
//
// Biome for TypeScript, JavaScript and JSON (its configuration holds the folder boundaries), knip for dead code and
// packages, clang-format for C++, Spectral and Redocly for the OpenAPI document, and the few rules of the house that none of
// them knows.
import { readFileSync } from "node:fs";
import { at, fail, filesBelow, run, say, works } from "./tools.mjs";

const fix = process.argv.includes("--fix");
const failures = [];

const biome = ["check", "--error-on-warnings", ...(fix ? ["--write"] : []), "."];
if ((await run(process.execPath, [at("node_modules/@biomejs/biome/bin/biome"), ...biome])) !== 0)
  failures.push("biome");

// Types are left out: an exported one documents an exported function even when nobody names it.
const knip = ["--include", "files,dependencies,unlisted,unresolved,exports", "--no-progress"];
if ((await run(process.execPath, [at("node_modules/knip/bin/knip.js"), ...knip])) !== 0) failures.push("knip");

const cpp = ["native", "test"].flatMap((folder) => filesBelow(folder, (path) => /\.(cc|h|c)$/.test(path)));
if (cpp.length > 0) {
  if (!works("clang-format", ["--version"])) fail('clang-format is missing: "apt-get install clang-format".');
  const options = fix ? ["-i"] : ["--dry-run", "-Werror"];
  if ((await run("clang-format", [...options, ...cpp])) !== 0) failures.push("clang-format");
}

// Every severity counts; what is allowed to be otherwise says why in the linters' own files.
const document = "openapi/openapi.json";
const spectral = ["lint", "--ruleset=openapi/spectral.yaml", "--fail-severity=hint", "--quiet", document];
if ((await run(process.execPath, [at("node_modules/@stoplight/spectral-cli/dist/index.js"), ...spectral])) !== 0)
  failures.push("spectral");
const redocly = ["lint", "--config=openapi/redocly.yaml", document];
// It tells home and asks for newer versions otherwise.
const env = { ...process.env, REDOCLY_TELEMETRY: "off", REDOCLY_SUPPRESS_UPDATE_NOTICE: "true" };
if ((await run(process.execPath, [at("node_modules/@redocly/cli/bin/cli.js"), ...redocly], { env })) !== 0)
  failures.push("redocly");

function forbid(files, pattern, why) {
  for (const file of files) {
    readFileSync(at(file), "utf8")
      .split("\n")
      .forEach((line, index) => {
        if (!pattern.test(line)) return;
        process.stderr.write(`${file}:${index + 1}: ${why}\n  ${line.trim()}\n`);
        failures.push(file);
      });
  }
}

const ownCpp = cpp.filter((path) => path.startsWith("native/"));
forbid(
  ownCpp.filter((path) => !path.startsWith("native/addon")),
  /#include <(napi|node_api|node|v8|uv)\.h>/,
  "the storage core compiles without Node: only the addon's files include its headers",
);
forbid(
  ownCpp.filter((path) => !path.startsWith("native/file.")),
  /::(fdatasync|fsync|fallocate|posix_fallocate|ftruncate|rename|renameat|renameat2|pwrite|mmap|madvise|statfs)\(/,
  "storage system calls are made in native/file.cc, where faults are injected",
);
const tests = filesBelow("test", (path) => path.endsWith(".test.ts"));
forbid(tests, /\b(t|test|tap)\.only\(|\bonly: true/, "a test marked only hides the others");

if (failures.length > 0) fail(`lint: ${[...new Set(failures)].join(", ")}`);
say("lint: clean");
