// tests/run/http_client.hpp — a client of plain sockets: it can also hang up, or send half a
// request.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>

#include "core/check.hpp"
#include "core/json.hpp"

namespace dsa::test {

class Connection {
 public:
  explicit Connection(int port) : fd_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    require(::connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0,
            "cannot connect to port " + std::to_string(port));
  }
  ~Connection() { ::close(fd_); }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  void send(const std::string& text) {
    require(
        ::send(fd_, text.data(), text.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(text.size()),
        "the server hung up");
  }

  /// At least one byte; nothing: the server hung up.
  std::string receive() {
    std::string text(65536, '\0');
    const auto n = ::recv(fd_, text.data(), text.size(), 0);
    text.resize(n > 0 ? static_cast<std::size_t>(n) : 0);
    return text;
  }

  std::string rest() {
    std::string all;
    for (std::string more = receive(); !more.empty(); more = receive()) all += more;
    return all;
  }

 private:
  int fd_;
};

struct HttpAnswer {
  int status = 0;
  std::string head, body;
  Json json() const { return parse_json(body, "the body"); }
};

/// The body of chunks "SIZE CRLF BYTES CRLF", sizes in hexadecimal.
inline std::string unchunked(const std::string& body) {
  std::string all;
  for (std::size_t at = 0; at < body.size();) {
    const std::size_t line = body.find("\r\n", at);
    const std::size_t size = std::stoul(body.substr(at, line - at), nullptr, 16);
    all += body.substr(line + 2, size);
    at = line + 2 + size + 2;
  }
  return all;
}

inline HttpAnswer parse_answer(const std::string& text) {
  const std::size_t end = text.find("\r\n\r\n");
  require(end != text.npos, "the answer has no end of its head: " + text);
  HttpAnswer answer{std::stoi(text.substr(text.find(' ') + 1)), text.substr(0, end),
                    text.substr(end + 4)};
  if (answer.head.find("Transfer-Encoding: chunked") != text.npos)
    answer.body = unchunked(answer.body);
  return answer;
}

inline std::string http_request(const std::string& method, const std::string& path,
                                const std::string& body, const std::string& more = "") {
  return method + " " + path + " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + more +
         "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
}

inline HttpAnswer ask(int port, const std::string& method, const std::string& path,
                      const std::string& body = "", const std::string& more = "") {
  Connection connection(port);
  connection.send(http_request(method, path, body, more));
  return parse_answer(connection.rest());
}

}  // namespace dsa::test
