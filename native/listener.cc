// listener.cc - see listener.h.
#include "listener.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "failpoint.h"

namespace holdfast {
namespace {

constexpr int kFirstInherited = 3;

int fail_closing(int fd) {
  const int error = errno;
  close(fd);
  return error;
}

bool unix_address(const std::string& path, sockaddr_un* address) {
  memset(address, 0, sizeof *address);
  address->sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address->sun_path) return false;
  memcpy(address->sun_path, path.c_str(), path.size() + 1);
  return true;
}

// A socket file whose owner is gone: connecting is refused at once.
bool is_stale(const sockaddr_un& address) {
  struct stat st;
  if (lstat(address.sun_path, &st) != 0 || !S_ISSOCK(st.st_mode)) return false;
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return false;
  const bool refused =
      connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 && errno == ECONNREFUSED;
  close(fd);
  return refused;
}

}  // namespace

int listener_open_tcp(const std::string& host, uint16_t port, int backlog, int* fd, std::string* lookup_error) {
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* found = nullptr;
  const int lookup = getaddrinfo(host.c_str(), nullptr, &hints, &found);
  if (lookup != 0) {
    *lookup_error = lookup == EAI_SYSTEM ? strerror(errno) : gai_strerror(lookup);
    return ENOENT;
  }
  sockaddr_storage address = {};
  const socklen_t length = found->ai_addrlen;
  const int family = found->ai_family;
  memcpy(&address, found->ai_addr, length);
  freeaddrinfo(found);
  if (family == AF_INET6) {
    reinterpret_cast<sockaddr_in6*>(&address)->sin6_port = htons(port);
  } else {
    reinterpret_cast<sockaddr_in*>(&address)->sin_port = htons(port);
  }

  const int made = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (made < 0) return errno;
  const int on = 1, off = 0;
  // A restart must not wait for the last run's connections in TIME_WAIT.
  if (setsockopt(made, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0) return fail_closing(made);
  if (family == AF_INET6 && setsockopt(made, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off) != 0) {
    return fail_closing(made);
  }
  if (bind(made, reinterpret_cast<sockaddr*>(&address), length) != 0) return fail_closing(made);
  if (listen(made, backlog) != 0) return fail_closing(made);
  *fd = made;
  return 0;
}

int listener_open_unix(const std::string& path, int backlog, int* fd) {
  sockaddr_un address;
  if (!unix_address(path, &address)) return ENAMETOOLONG;
  const int made = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (made < 0) return errno;
  const auto* generic = reinterpret_cast<const sockaddr*>(&address);
  if (bind(made, generic, sizeof address) != 0) {
    if (errno != EADDRINUSE || !is_stale(address)) return fail_closing(made);
    unlink(address.sun_path);
    if (bind(made, generic, sizeof address) != 0) return fail_closing(made);
  }
  if (listen(made, backlog) != 0) return fail_closing(made);
  *fd = made;
  return 0;
}

int listener_inherited_count() {
  const char* owner = getenv("LISTEN_PID");
  const char* count = getenv("LISTEN_FDS");
  // A value for another process has only been passed on by accident.
  if (owner == nullptr || count == nullptr || strtol(owner, nullptr, 10) != getpid()) return 0;
  const long sockets = strtol(count, nullptr, 10);
  if (sockets <= 0 || sockets > 1024) return 0;
  for (int fd = kFirstInherited; fd < kFirstInherited + sockets; ++fd) fcntl(fd, F_SETFD, FD_CLOEXEC);
  return static_cast<int>(sockets);
}

void listener_drop_new(int fd) {
  // Byte 13 of the TCP header holds the flags, 0x02 is SYN. The ACK that completes a handshake passes.
  sock_filter program[] = {
      BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 13),
      BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, 0x02, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, 0),
      BPF_STMT(BPF_RET | BPF_K, 0xffffffff),
  };
  const sock_fprog filter = {sizeof program / sizeof program[0], program};
  int family = 0;
  socklen_t length = sizeof family;
  if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &length) != 0) return;
  if (family != AF_INET && family != AF_INET6) return;
  // Where the kernel doesn't allow it, a handshake that ends between the last accept and the close is reset.
  if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof filter) != 0) return;
}

int listener_accept_all(int fd, std::vector<int>* connections) {
  if (HOLDFAST_MUTANT("queue_not_rescued")) return 0;
  for (;;) {
    const int connection = accept4(fd, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (connection >= 0) {
      connections->push_back(connection);
      continue;
    }
    if (errno == EINTR || errno == ECONNABORTED) continue;
    return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : errno;
  }
}

int listener_close(int fd, bool shared, std::vector<int>* connections) {
  int family = AF_INET;
  socklen_t length = sizeof family;
  getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &length);
  const int spare = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (spare < 0) return errno;
  const int accepted = shared ? 0 : listener_accept_all(fd, connections);
  if (dup3(spare, fd, O_CLOEXEC) < 0) return fail_closing(spare);
  close(spare);
  // Those that no descriptor is left for are reset: to say so would lose the others.
  return accepted == EMFILE || accepted == ENFILE ? 0 : accepted;
}

}  // namespace holdfast
