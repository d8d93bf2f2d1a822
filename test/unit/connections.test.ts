// connections.test.ts - when a connection may be ended without a word.
import { once } from "node:events";
import { createServer } from "node:http";
import { type AddressInfo, connect, createServer as createTcpServer, type Socket } from "node:net";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import t from "tap";
import { lifecycle as nativeProcess } from "../../native/lifecycle.js";
import { Connections } from "../../service/connections.js";
import { freshDir } from "../service-process.js";

t.test("what a connection brought along when it was adopted is read before it may count as silent", async (t) => {
  const connections = new Connections(createServer((_, response) => response.end("read")));
  const path = join(freshDir(), "socket");
  const listener = nativeProcess.listenUnix(path);
  const bell = createTcpServer().listen(0, "127.0.0.1");
  await once(bell, "listening");
  t.teardown(() => bell.close());
  const ringing = connect((bell.address() as AddressInfo).port, "127.0.0.1");
  const [rung] = (await once(bell, "connection")) as [Socket];

  // In the accept queue, which nobody polls, each with a request.
  const waiting = await Promise.all(
    Array.from({ length: 8 }, async () => {
      const socket = connect(path);
      await once(socket, "connect");
      socket.write("GET / HTTP/1.1\r\nhost: test\r\n\r\n");
      return socket;
    }),
  );
  const answers = waiting.map((socket) => text(socket).catch((error: Error) => error.message));
  // The sweep is called while the event loop polls, which is where the news of a signal comes from.
  rung.once("data", () => {
    connections.adopt(nativeProcess.closeListener(listener, false));
    connections.closeWhenAnswered();
    connections.sweep(false);
  });
  ringing.end("now");
  for (const answer of await Promise.all(answers)) t.match(answer, /^HTTP\/1\.1 200 OK.*read$/s);
});
