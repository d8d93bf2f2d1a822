// flags.ts - how the drill's programs read their flags: what can't be used ends them with one sentence and code 64.
import { type ParseArgsConfig, parseArgs } from "node:util";

export const backendNames = ["process", "pidns", "docker", "podman"] as const;
export type BackendName = (typeof backendNames)[number];

export class Flags {
  constructor(readonly program: string) {}

  usage(message: string): never {
    process.stderr.write(`${this.program}: ${message} (--help)\n`);
    process.exit(64);
  }

  read<Options extends NonNullable<ParseArgsConfig["options"]>>(options: Options) {
    try {
      return parseArgs({ options }).values;
    } catch (error) {
      return this.usage((error as Error).message);
    }
  }

  backend(name: string): BackendName {
    const found = backendNames.find((known) => known === name);
    return found ?? this.usage(`--backend: ${name} is none of ${backendNames.join(", ")}`);
  }
}
