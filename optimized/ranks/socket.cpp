#include "optimized/ranks/socket.hpp"

#include <arpa/inet.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <system_error>

#include "core/check.hpp"

namespace dsa::ranks {
namespace {

constexpr std::uint32_t longest_message = 1 << 26;

std::string reason() { return std::generic_category().message(errno); }

sockaddr* general(sockaddr_in* address) { return reinterpret_cast<sockaddr*>(address); }

/// Small messages leave at once; a host that is switched off is noticed while nothing is sent.
void tune(int fd) {
  const auto set = [fd](int level, int option, int value) {
    ::setsockopt(fd, level, option, &value, sizeof value);
  };
  set(IPPROTO_TCP, TCP_NODELAY, 1);
  set(SOL_SOCKET, SO_KEEPALIVE, 1);
  set(IPPROTO_TCP, TCP_KEEPIDLE, 10);
  set(IPPROTO_TCP, TCP_KEEPINTVL, 5);
  set(IPPROTO_TCP, TCP_KEEPCNT, 4);
}

/// Whether the descriptor has an event before the deadline.
bool wait_for(int fd, short events, Deadline deadline) {
  for (;;) {
    pollfd one{fd, events, 0};
    const int ready = ::poll(&one, 1, milliseconds_until(deadline));
    if (ready > 0) return true;
    if (ready == 0 && Clock::now() >= deadline) return false;
    if (ready < 0 && errno != EINTR) return false;
  }
}

bool send_all(int fd, const char* data, std::size_t size, Deadline deadline) {
  while (size > 0) {
    if (!wait_for(fd, POLLOUT, deadline)) return false;
    const ssize_t n = ::send(fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0 && errno != EAGAIN && errno != EINTR) return false;
    if (n > 0) data += n, size -= static_cast<std::size_t>(n);
  }
  return true;
}

bool receive_all(int fd, char* data, std::size_t size, Deadline deadline) {
  while (size > 0) {
    if (!wait_for(fd, POLLIN, deadline)) return false;
    const ssize_t n = ::recv(fd, data, size, MSG_DONTWAIT);
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) return false;
    if (n > 0) data += n, size -= static_cast<std::size_t>(n);
  }
  return true;
}

}  // namespace

int milliseconds_until(Deadline deadline) {
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
  return static_cast<int>(std::clamp<std::int64_t>(left, 0, 1'000'000));
}

Socket::~Socket() {
  if (fd_ >= 0) ::close(fd_);
}

Listener listen_anywhere() {
  Listener listener{Socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)), 0};
  const int fd = listener.socket.fd();
  sockaddr_in any{};
  any.sin_family = AF_INET;
  any.sin_addr.s_addr = htonl(INADDR_ANY);
  socklen_t size = sizeof any;
  require(fd >= 0 && ::bind(fd, general(&any), size) == 0 && ::listen(fd, SOMAXCONN) == 0 &&
              ::getsockname(fd, general(&any), &size) == 0,
          "cannot listen for the other ranks: " + reason());
  listener.port = ntohs(any.sin_port);
  make_nonblocking(listener.socket);
  return listener;
}

Socket connect_to(const std::string& address, int port, Deadline deadline) {
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(static_cast<std::uint16_t>(port));
  if (::inet_pton(AF_INET, address.c_str(), &to.sin_addr) != 1) return {};
  Socket socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  require(socket.is_open(), "cannot open a connection to another rank: " + reason() +
                                "; a rank has two to each other one, see ulimit -n");
  const int fd = socket.fd();
  if (::connect(fd, general(&to), sizeof to) != 0) {
    if (errno != EINPROGRESS || !wait_for(fd, POLLOUT, deadline)) return {};
    int error = 0;
    socklen_t size = sizeof error;
    if (::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0 || error != 0) return {};
  }
  tune(fd);
  return socket;
}

Socket accept_from(const Listener& listener, Deadline deadline) {
  while (wait_for(listener.socket.fd(), POLLIN, deadline)) {
    const int fd = ::accept4(listener.socket.fd(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0) {
      tune(fd);
      return Socket(fd);
    }
    require(errno != EMFILE && errno != ENFILE,
            "cannot accept another rank: " + reason() +
                "; a rank has two connections to each other one, see ulimit -n");
  }
  return {};
}

std::vector<std::string> own_addresses() {
  std::vector<std::string> outside, inside;
  ifaddrs* all = nullptr;
  if (::getifaddrs(&all) != 0) return {"127.0.0.1"};
  for (const ifaddrs* one = all; one != nullptr; one = one->ifa_next) {
    if (one->ifa_addr == nullptr || one->ifa_addr->sa_family != AF_INET) continue;
    if ((one->ifa_flags & IFF_UP) == 0) continue;
    char text[INET_ADDRSTRLEN] = {};
    const auto* address = reinterpret_cast<const sockaddr_in*>(one->ifa_addr);
    ::inet_ntop(AF_INET, &address->sin_addr, text, sizeof text);
    ((one->ifa_flags & IFF_LOOPBACK) != 0 ? inside : outside).emplace_back(text);
  }
  ::freeifaddrs(all);
  outside.insert(outside.end(), inside.begin(), inside.end());
  return outside;
}

std::string address_of_peer(const Socket& socket) {
  sockaddr_in peer{};
  socklen_t size = sizeof peer;
  char text[INET_ADDRSTRLEN] = {};
  if (::getpeername(socket.fd(), general(&peer), &size) == 0)
    ::inet_ntop(AF_INET, &peer.sin_addr, text, sizeof text);
  return text;
}

bool send_message(const Socket& socket, const std::string& text, Deadline deadline) {
  const auto size = static_cast<std::uint32_t>(text.size());
  std::string bytes(sizeof size, '\0');
  std::memcpy(bytes.data(), &size, sizeof size);
  bytes += text;
  return send_all(socket.fd(), bytes.data(), bytes.size(), deadline);
}

std::optional<std::string> receive_message(const Socket& socket, Deadline deadline) {
  std::uint32_t size = 0;
  if (!receive_all(socket.fd(), reinterpret_cast<char*>(&size), sizeof size, deadline)) return {};
  if (size > longest_message) return {};
  std::string text(size, '\0');
  if (!receive_all(socket.fd(), text.data(), size, deadline)) return {};
  return text;
}

void make_nonblocking(const Socket& socket) {
  const int flags = ::fcntl(socket.fd(), F_GETFL);
  ::fcntl(socket.fd(), F_SETFL, flags | O_NONBLOCK);
}

}  // namespace dsa::ranks
