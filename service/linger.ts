// linger.ts - how a connection ends whose client is still sending. Node closes it as soon as its last answer is written; with
// bytes of the body still unread that is a reset, which can overtake the answer.
import type { IncomingMessage } from "node:http";
import { Socket } from "node:net";

/** How long a client that is answered may go on sending while the service stops: it has to notice the answer. */
const usualMs = 100;

/** Closes our side, reads what still comes, for at most so long, and ends the connection. */
export function linger(socket: Socket, msMax = usualMs): void {
  socket.end();
  socket.resume();
  const timer = setTimeout(() => socket.destroy(), msMax);
  socket.once("end", () => socket.destroy());
  socket.once("close", () => clearTimeout(timer));
}

/** The answer to this request is the last one of its connection, which lingers if the body has not arrived whole by then. */
export function lingerAfter(request: IncomingMessage, msMax = usualMs): void {
  const { socket } = request;
  // Node calls this after the last answer.
  socket.destroySoon = () => {
    if (request.complete) Socket.prototype.destroySoon.call(socket);
    else linger(socket, msMax);
  };
}
