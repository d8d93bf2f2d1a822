// witnesses.ts - clients of every durability at one service, on the drill's ledger, load and judge: what they were told is
// compared with what a restart shows, in its answers and in the files that other programs map. Kills nothing itself.
import {
  judge,
  makeRegions,
  renewRegions,
  retryAmbiguous,
  type Scan,
  scan,
  scanFiles,
} from "../../docker/drill/judge.js";
import { type Durabilities, type Epoch, Ledger } from "../../docker/drill/ledger.js";
import { Load } from "../../docker/drill/load.js";

/** Alone and mixed. */
const mixes: readonly Durabilities[] = [
  ["fast", "fast", "fast"],
  ["ordered", "ordered", "ordered"],
  ["durable", "durable", "durable"],
  ["ordered", "durable", "ordered"],
];
const clientsOfMix = 2;
export const mixCount = mixes.length;

export interface Verdict {
  /** Batches that nobody had an answer to and that are not there: the kill came before they were published. */
  absent: number;
  /** And those that are there. */
  landed: number;
  /** Records that the start applied again: published before the kill, and not applied, or not yet said to be. */
  redone: number;
  /** Of the table in native/recovery.h. */
  row: string;
}

interface Recovery {
  row: string;
  redone: number;
  faulted: string[];
  unverified: string[];
}

const targetOf = (port: number) => ({ host: "127.0.0.1", port });

export class Witnesses {
  readonly #ledgers = mixes.map((mix) => new Ledger(mix));
  answered = 0;
  reads = 0;
  replays = 0;

  async makeRegions(port: number): Promise<void> {
    for (const { epoch } of this.#ledgers) await makeRegions(targetOf(port), epoch);
  }

  /** Starts every client, and a reader of one mix: the others have the processor. */
  start(port: number, watched: number): Load[] {
    return this.#ledgers.map(
      (ledger, at) => new Load(targetOf(port), ledger, { connections: clientsOfMix, readers: Number(at === watched) }),
    );
  }

  /** Batches that were acknowledged to clients of a region that is durable; of loads that have ended. */
  durableAnswered(loads: readonly Load[]): number {
    const durable = loads.filter((_, at) => mixes[at]!.includes("durable"));
    return durable.reduce((sum, load) => sum + load.acknowledged, 0);
  }

  /** Ends the clients. @throws with what an answer alone shows to be wrong */
  async stop(loads: readonly Load[]): Promise<void> {
    for (const load of loads) {
      await load.stop();
      this.answered += load.acknowledged;
      this.reads += load.reads;
      if (load.unexpected.length > 0) throw new Error(`answered: ${load.unexpected[0]}`);
      if (load.mixedReads > 0) throw new Error(`torn: ${load.mixedReads} reads saw two batches`);
      if (load.backwardReads > 0) throw new Error(`${load.backwardReads} reads went back to an older generation`);
    }
  }

  /**
   * Judges, lets each client ask again for what it doesn't know, and judges again, also the files below `dir`. Nothing else
   * may run. @throws with what is wrong
   */
  async judge(port: number, dir: string): Promise<Verdict> {
    const target = targetOf(port);
    const status = await (await fetch(`http://127.0.0.1:${port}/v1/status`)).json();
    const { row, redone, faulted, unverified } = (status as { store: { recovery: Recovery } }).store.recovery;
    if (faulted.length > 0 || unverified.length > 0) throw new Error(`faulted ${faulted}, unverified ${unverified}`);
    const verdict: Verdict = { absent: 0, landed: 0, redone, row };
    for (const ledger of this.#ledgers) {
      const { epoch } = ledger;
      const found = await scan(target, epoch);
      const { ambiguousAbsent, ambiguousThere } = demand(epoch, found);
      verdict.absent += ambiguousAbsent;
      verdict.landed += ambiguousThere;
      const { violations } = await retryAmbiguous(target, epoch, found, undefined);
      if (violations.length > 0) throw new Error(violations.map(({ detail }) => detail).join("; "));
      this.replays += ambiguousThere;
      const after = await scan(target, epoch);
      demand(epoch, after);
      demand(epoch, await scanFiles(target, dir, epoch, after));
      if (ledger.worn) await renewRegions(target, ledger);
    }
    return verdict;
  }
}

function demand(epoch: Epoch, found: Scan) {
  const judgement = judge(epoch, found);
  const wrong = judgement.violations.slice(0, 10).map(({ invariant, detail }) => `${invariant} ${detail}`);
  if (wrong.length > 0) throw new Error(`${epoch.durabilities}: ${wrong.join("; ")}`);
  return judgement;
}
