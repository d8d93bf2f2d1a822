// scripts/start.mjs - from a clone to a running service: installs and builds what is missing or stale, each step told in
// one line, then becomes the service in this very process.
//
// In the same process, because a wrapper that waits for a child has to forward every signal and tends to swallow one.
// `npm start` runs this through `exec`, so that no shell is in between either: npm passes SIGTERM and SIGINT on to the
// service. With Ctrl-C the terminal signals the whole group, so the service gets SIGINT twice, from the terminal and from
// npm. While something is installed or built nothing is open yet, and a signal simply ends the start.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { build, demandTools, stale } from "./build.mjs";
import { at, exitConfig, fail, run, say, withBuildLock } from "./tools.mjs";

const minimum = [20, 19];
const [major, minor] = process.versions.node.split(".").map(Number);
if (major < minimum[0] || (major === minimum[0] && minor < minimum[1])) {
  fail(`Node ${process.versions.node} is too old: ${minimum.join(".")} or later is needed.`, exitConfig);
}
if (process.platform !== "linux" || !["x64", "arm64"].includes(process.arch)) {
  fail(`holdfast runs on Linux x64 and arm64; this is ${process.platform} ${process.arch}.`, exitConfig);
}

function lockfile(path) {
  try {
    return JSON.parse(readFileSync(at(path), "utf8")).packages;
  } catch (error) {
    if (error.code === "ENOENT") return {};
    throw error;
  }
}

// Compared by version and not by time: a pull touches the lockfile without changing what is installed.
function missingPackages(withTools) {
  const installed = lockfile("node_modules/.package-lock.json");
  return Object.entries(lockfile("package-lock.json"))
    .filter(([path, entry]) => path !== "" && !entry.optional && (withTools || !entry.dev))
    .filter(([path, entry]) => installed[path]?.version !== entry.version)
    .map(([path]) => path);
}

const wanted = ["release", "ts"];
// Before anything is installed: who has to fetch a compiler first wants to know at once.
if (stale(["release"]).length > 0) demandTools();
const mustInstall = () => missingPackages(stale(wanted).length > 0).length > 0;
if (mustInstall()) {
  await withBuildLock(async () => {
    if (!mustInstall()) return;
    say("installing packages (npm ci), once");
    // --include=dev: the compiler is among them, and NODE_ENV=production would leave it out.
    // Errors only: the engine warnings are about code paths of packages that are not used here.
    const code = await run("npm", ["ci", "--include=dev", "--no-audit", "--no-fund", "--loglevel=error"]);
    if (code !== 0) fail(`"npm ci" failed with exit code ${code} (above).`);
  });
}
await build(wanted);

const main = at("dist/service/main.js");
process.argv = [process.argv[0], main, ...process.argv.slice(2)];
await import(pathToFileURL(main).href);
