#include "run/serve/http.hpp"

#include <arpa/inet.h>
#include <httplib.h>
#include <sys/socket.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <string>
#include <thread>

#include "core/check.hpp"

namespace dsa::run::serve {
namespace {

/// A port of either family, in host order; 0 for sockets of another kind.
int port_of(const sockaddr_storage& address) {
  if (address.ss_family == AF_INET)
    return ntohs(reinterpret_cast<const sockaddr_in&>(address).sin_port);
  if (address.ss_family == AF_INET6)
    return ntohs(reinterpret_cast<const sockaddr_in6&>(address).sin6_port);
  return 0;
}

/// The descriptor of a connection, which httplib keeps to itself; -1 where it is closed.
int socket_of(const httplib::Request& request) {
  std::error_code vanished;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd", vanished)) {
    const int fd = std::atoi(entry.path().filename().c_str());
    sockaddr_storage here{}, there{};
    socklen_t here_size = sizeof here, there_size = sizeof there;
    if (getsockname(fd, reinterpret_cast<sockaddr*>(&here), &here_size) == 0 &&
        getpeername(fd, reinterpret_cast<sockaddr*>(&there), &there_size) == 0 &&
        port_of(here) == request.local_port && port_of(there) == request.remote_port)
      return fd;
  }
  return -1;
}

/// At the end of what the client sends there is nothing to wait for: nobody reads the answer.
bool is_closed(int fd) {
  char next = 0;
  const auto n = ::recv(fd, &next, 1, MSG_PEEK | MSG_DONTWAIT);
  return n == 0 || (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR);
}

/// Counts a request for as long as it lives.
class InFlight {
 public:
  explicit InFlight(std::atomic<int>& count) : count_(count) { ++count_; }
  ~InFlight() { --count_; }
  InFlight(const InFlight&) = delete;
  InFlight& operator=(const InFlight&) = delete;

 private:
  std::atomic<int>& count_;
};

}  // namespace

struct HttpServer::Implementation {
  httplib::Server server;
  Handler handler;
  ErrorBody error_body;
  int port = 0;
  std::atomic<int> in_flight = 0;
  std::thread listener;

  void answer(const httplib::Request& request, httplib::Response& response) {
    const auto counted = std::make_shared<InFlight>(in_flight);
    const int fd = socket_of(request);
    HttpReply reply = handler({request.method, request.path, request.body,
                               request.get_header_value("Authorization"),
                               [fd] { return fd >= 0 && is_closed(fd); }});
    response.status = reply.status;
    if (!reply.retry_after.empty()) response.set_header("Retry-After", reply.retry_after);
    if (!reply.events) {
      response.set_content(reply.body, "application/json");
      return;
    }
    response.set_header("Cache-Control", "no-cache");
    response.set_chunked_content_provider(
        "text/event-stream",
        [events = std::move(reply.events), counted](std::size_t, httplib::DataSink& sink) {
          bool sent = true;
          events([&](std::string_view piece) {
            sent = sent && sink.write(piece.data(), piece.size());
            return sent;
          });
          if (sent) sink.done();
          return sent;
        });
  }

  void configure(HttpLimits limits) {
    const auto answer_to = [this](const httplib::Request& request, httplib::Response& response) {
      answer(request, response);
    };
    constexpr const char* any = ".*";
    server.Get(any, answer_to).Post(any, answer_to).Put(any, answer_to).Patch(any, answer_to);
    server.Delete(any, answer_to).Options(any, answer_to);
    const httplib::Server::Handler complete = [this](const httplib::Request&,
                                                     httplib::Response& response) {
      if (response.body.empty())
        response.set_content(error_body(response.status), "application/json");
    };
    server.set_error_handler(complete);
    server.set_exception_handler([](const httplib::Request&, httplib::Response& response,
                                    std::exception_ptr) { response.status = 500; });
    server.set_payload_max_length(limits.body_bytes);
    server.set_tcp_nodelay(true);
    server.set_socket_options([](int socket) {  // httplib's own would share the port with others
      const int yes = 1;
      ::setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    });
    constexpr std::size_t forever = 1'000'000'000;
    server.set_keep_alive_max_count(forever);
    const auto threads = static_cast<std::size_t>(limits.connections);
    server.new_task_queue = [threads] { return new httplib::ThreadPool(threads); };
  }

  void bind(const std::string& address, int wanted) {
    errno = 0;
    port = wanted == 0                            ? server.bind_to_any_port(address)
           : server.bind_to_port(address, wanted) ? wanted
                                                  : -1;
    require(port > 0, "cannot listen on " + address + " port " + std::to_string(wanted) +
                          (errno != 0 ? std::string(" (") + std::strerror(errno) + ")" : "") +
                          "; choose an address of this machine and a free port, or --port 0");
  }
};

HttpServer::HttpServer(const std::string& address, int port, HttpLimits limits, Handler handler,
                       ErrorBody error_body)
    : implementation_(std::make_unique<Implementation>()) {
  implementation_->handler = std::move(handler);
  implementation_->error_body = std::move(error_body);
  implementation_->configure(limits);
  implementation_->bind(address, port);
  implementation_->listener = std::thread([this] { implementation_->server.listen_after_bind(); });
  while (!implementation_->server.is_running()) std::this_thread::yield();
}

HttpServer::~HttpServer() {
  implementation_->server.stop();
  implementation_->listener.join();
}

int HttpServer::port() const { return implementation_->port; }

int HttpServer::in_flight() const { return implementation_->in_flight; }

}  // namespace dsa::run::serve
