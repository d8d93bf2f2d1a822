// open-store.ts - the store of a run: opened, with every file that the command line names adopted as a region. Nothing of
// HTTP.
import { realpathSync, type Stats, statSync } from "node:fs";
import { Store, StoreError } from "../native/index.js";
import type { Config, Mapping } from "./config.js";

/** Codes of a store that somebody has to look at settings, rights or another process for. */
const mendableCodes = new Set(["lease_held", "unsupported_file_system", "permission_denied", "insufficient_storage"]);

/** One sentence why the service can't start. */
export class StoreRefused extends Error {
  override name = "StoreRefused";
  constructor(
    sentence: string,
    readonly mendable: boolean,
  ) {
    super(sentence);
  }
}

/**
 * Waits while another process holds the store; `onStandby` is called then.
 * @throws StoreRefused
 */
export async function openStore(config: Config, onStandby: () => void): Promise<Store> {
  const store = await refusing(`the store in ${config.dataDir} can't be opened`, () =>
    Store.open({ ...config, dir: config.dataDir }, onStandby),
  );
  for (const mapping of config.map) await adopt(store, mapping);
  return store;
}

/** The file becomes a region in place; the second start with the same --map finds that it is one. */
async function adopt(store: Store, { name, path }: Mapping): Promise<void> {
  const what = `${path} can't be mapped as ${name}`;
  const known = store.info(name);
  if (known !== undefined) {
    if (known.adoptedPath !== null && realpath(known.adoptedPath) === realpath(path)) return;
    throw new StoreRefused(`${what}: there is another region of this name`, true);
  }
  const stat = statOf(path, what);
  const region = { name, size: stat.size, labels: "{}", sparse: false, adoptPath: path };
  await refusing(what, async () => {
    try {
      await store.create({ ...region, durability: "durable" });
    } catch (error) {
      if (!(error instanceof StoreError) || error.code !== "durability_unavailable") throw error;
      // tmpfs survives no power loss: the strongest that it can give.
      await store.create({ ...region, durability: "ordered" });
    }
  });
}

/** @throws StoreRefused */
function statOf(path: string, what: string): Stats {
  try {
    const stat = statSync(path, { throwIfNoEntry: false });
    if (stat !== undefined) return stat;
  } catch (error) {
    throw new StoreRefused(`${what}: ${(error as Error).message}`, true);
  }
  throw new StoreRefused(`${what}: there is no such file`, true);
}

function realpath(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    return path;
  }
}

async function refusing<T>(what: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof StoreError)) throw error;
    throw new StoreRefused(`${what}: ${error.detail || error.code}`, mendableCodes.has(error.code));
  }
}
