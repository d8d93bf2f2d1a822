// listener.h - the listening socket, made and closed here so that no established connection is ever reset.
//
// A listening socket that is closed resets what waits in its accept queue: connections whose client has seen them
// established and may have sent a request. libuv accepts one connection a loop turn, so under load some always wait.
// Here the queue is emptied first. The descriptor itself stays valid (another socket is put over it), so the event loop
// that polls it notices nothing.
//
// Errors are errno values, 0 is success. Blocking calls: none but the name lookup. Any thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace holdfast {

// A listening TCP socket, non-blocking, close-on-exec. `host` is a name or an address, the first it resolves to is
// taken; "::" takes IPv4 as well. `lookup_error` gets the resolver's sentence when that is what failed (and the result
// is ENOENT).
int listener_open_tcp(const std::string& host, uint16_t port, int backlog, int* fd, std::string* lookup_error);
// A listening unix socket. A socket file that nobody listens on any more is replaced; EADDRINUSE if somebody does,
// or if the path is no socket.
int listener_open_unix(const std::string& path, int backlog, int* fd);
// Sockets handed over by a service manager (LISTEN_PID, LISTEN_FDS), which start at descriptor 3. Makes them
// close-on-exec.
int listener_inherited_count();

// Begins the end of a TCP listener: SYNs are dropped from now on while handshakes under way complete. A client that
// tries meanwhile tries again after a second, finds nobody and is refused, or finds a successor. Best effort; not for a
// socket that others share.
void listener_drop_new(int fd);
// Accepts whatever waits and appends the connections (non-blocking, close-on-exec).
int listener_accept_all(int fd, std::vector<int>* connections);
// listener_accept_all, then an unconnected socket takes the descriptor's place. `shared`: somebody else goes on
// listening on the same socket, so nothing is accepted.
int listener_close(int fd, bool shared, std::vector<int>* connections);

}  // namespace holdfast
