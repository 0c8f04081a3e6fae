// optimized/ranks/socket.hpp — TCP connections, and whole messages over them with a deadline.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace dsa::ranks {

using Clock = std::chrono::steady_clock;
using Deadline = Clock::time_point;

/// Milliseconds until then, for poll(); 0 where it is over.
int milliseconds_until(Deadline);

/// A file descriptor that is closed with its owner.
class Socket {
 public:
  Socket() = default;
  explicit Socket(int fd) : fd_(fd) {}
  ~Socket();
  Socket(Socket&& from) noexcept : fd_(std::exchange(from.fd_, -1)) {}
  Socket& operator=(Socket&& from) noexcept {
    std::swap(fd_, from.fd_);
    return *this;
  }
  int fd() const { return fd_; }
  bool is_open() const { return fd_ >= 0; }

 private:
  int fd_ = -1;
};

/// Listens at every IPv4 address of this host, at a port that the system chooses.
struct Listener {
  Socket socket;
  int port = 0;
};
Listener listen_anywhere();

/// No socket: nobody answers there before the deadline.
Socket connect_to(const std::string& address, int port, Deadline);

/// No socket: nobody came before the deadline.
Socket accept_from(const Listener&, Deadline);

/// IPv4 addresses of this host, those that only the host itself reaches last.
std::vector<std::string> own_addresses();
std::string address_of_peer(const Socket&);

/// A message is its length and its bytes. False, nothing: the other side is gone, silent, or sends
/// what is no message.
bool send_message(const Socket&, const std::string&, Deadline);
std::optional<std::string> receive_message(const Socket&, Deadline);

void make_nonblocking(const Socket&);

}  // namespace dsa::ranks
