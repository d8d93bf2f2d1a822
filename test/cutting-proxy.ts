// cutting-proxy.ts - a TCP proxy that loses connections as it is told: what was sent has arrived, and its answer does not.
import { once } from "node:events";
import { type AddressInfo, connect, createServer } from "node:net";
import type { Test } from "tap";

export interface CuttingProxy {
  port: number;
  connections: number;
  /** Bytes of answers that the next connections let through before they are lost; after the last of them all bytes are. */
  cuts: number[];
  /** Loses every connection that is open. */
  cut(): void;
}

export async function cuttingProxy(t: Test, toPort: number, cuts: number[] = []): Promise<CuttingProxy> {
  const open = new Set<() => void>();
  const proxy: CuttingProxy = {
    port: 0,
    connections: 0,
    cuts,
    cut: () => {
      for (const lose of open) lose();
    },
  };
  const server = createServer((near) => {
    proxy.connections++;
    const far = connect(toPort, "127.0.0.1");
    let left = proxy.cuts.shift() ?? Number.POSITIVE_INFINITY;
    // A connection that is being ended can't be reset: Node would leave it open, and its event loop turning.
    const lose = () => void (near.writableEnded ? near.destroy() : near.resetAndDestroy());
    open.add(lose);
    near.pipe(far);
    far.on("data", (bytes) => {
      left -= bytes.length;
      if (left < 0) lose();
      else near.write(bytes);
    });
    far.on("end", () => near.end());
    near.on("error", () => {});
    far.on("error", lose);
    near.on("close", () => {
      open.delete(lose);
      far.destroy();
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.teardown(() => {
    proxy.cut();
    server.close();
  });
  proxy.port = (server.address() as AddressInfo).port;
  return proxy;
}
