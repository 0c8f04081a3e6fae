// run/serve/http.hpp — HTTP without a word of what is asked: requests in, replies or events out.
//
// cpp-httplib does the work. Its header is included by http.cpp alone, for it takes seconds to
// compile.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace dsa::run::serve {

struct HttpRequest {
  std::string method, path, body, authorization;
  std::function<bool()> is_gone;  // the client has hung up
};

/// Sends a piece of a body. False: the client has hung up.
using Send = std::function<bool(std::string_view)>;

struct HttpReply {
  int status = 200;
  std::string body = {};                         // JSON
  std::function<void(const Send&)> events = {};  // server-sent events instead of the body
  std::string retry_after = {};                  // seconds; empty: no such header
};

/// Called from many threads at once. What it throws becomes a reply of status 500.
using Handler = std::function<HttpReply(const HttpRequest&)>;

/// The body of a reply that http.cpp itself gives: to what is no HTTP, or too large.
using ErrorBody = std::function<std::string(int status)>;

struct HttpLimits {
  std::size_t body_bytes = 0;  // of a request
  int connections = 0;         // served at once; others wait
};

class HttpServer {
 public:
  /// Answers from now on. Port 0: any that is free. Error: the address cannot be used.
  HttpServer(const std::string& address, int port, HttpLimits, Handler, ErrorBody);
  /// Replies that have begun are finished; events are cut off.
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  int port() const;

  /// Requests that are being answered.
  int in_flight() const;

 private:
  struct Implementation;
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace dsa::run::serve
