#include "optimized/ranks/communicator.hpp"

#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace dsa::ranks {
namespace {

using namespace std::chrono_literals;

constexpr char farewell = 'F', failure = 'E';

/// Before every message. A rank that runs another program, or is a step ahead, is noticed.
struct Head {
  std::uint64_t number = 0, bytes = 0;
};

template <class Pieces>
std::uint64_t bytes_of(const Pieces& pieces) {
  std::uint64_t bytes = 0;
  for (const auto& piece : pieces) bytes += piece.size();
  return bytes;
}

/// Memory that is read or written piece by piece.
class Cursor {
 public:
  void add(const void* data, std::size_t size) {
    if (size == 0) return;
    pieces_.push_back({const_cast<void*>(data), size});
    left_ += size;
  }
  std::uint64_t left() const { return left_; }
  msghdr next() {
    constexpr std::size_t most = 64;  // pieces of one system call
    msghdr message{};
    message.msg_iov = pieces_.data() + first_;
    message.msg_iovlen = std::min(pieces_.size() - first_, most);
    return message;
  }
  void advance(std::size_t n) {
    left_ -= n;
    while (n > 0) {
      iovec& piece = pieces_[first_];
      const std::size_t taken = std::min(n, piece.iov_len);
      piece.iov_base = static_cast<char*>(piece.iov_base) + taken;
      piece.iov_len -= taken;
      n -= taken;
      if (piece.iov_len == 0) ++first_;
    }
  }

 private:
  std::vector<iovec> pieces_;
  std::size_t first_ = 0;
  std::uint64_t left_ = 0;
};

void copy(const Out& from, const In& to) {
  std::size_t piece = 0, at = 0;
  for (std::span<const std::byte> source : from)
    while (!source.empty()) {
      const std::span<std::byte> target = to[piece].subspan(at);
      const std::size_t n = std::min(source.size(), target.size());
      std::memcpy(target.data(), source.data(), n);
      source = source.subspan(n);
      at += n;
      if (at == to[piece].size()) ++piece, at = 0;
    }
}

bool is_temporary(int error) { return error == EAGAIN || error == EWOULDBLOCK || error == EINTR; }

}  // namespace

/// The connections to one other rank, and what came over that for last words.
struct Communicator::Link {
  Peer peer;
  std::uint64_t sent = 0, received = 0;  // messages
  std::string word;
  bool has_left = false, is_gone = false;
};

/// One exchange with one rank.
struct Communicator::Flow {
  Head out_head, in_head;
  Cursor out, in;
  std::uint64_t in_bytes = 0;  // that are expected, without the head
  bool head_checked = false;
  Clock::time_point last = Clock::now();  // when something moved
  bool is_done() const { return out.left() == 0 && in.left() == 0; }
};

Communicator::Communicator() : members_(1, this_process(0)) { links_.resize(1); }

Communicator::Communicator(int rank, Mesh mesh, std::chrono::seconds patience)
    : rank_(rank), members_(std::move(mesh.members)), patience_(patience) {
  for (Peer& peer : mesh.peers) {
    links_.emplace_back();
    links_.back().peer = std::move(peer);
  }
}

Communicator::~Communicator() {
  if (has_ended_) return;
  for (const Link& link : links_)
    if (link.peer.word.is_open())
      ::send(link.peer.word.fd(), &farewell, 1, MSG_NOSIGNAL | MSG_DONTWAIT);
}

void Communicator::end(const std::string& sentence) {
  has_ended_ = true;
  const std::string text = failure + sentence.substr(0, 4000);
  for (const Link& link : links_)
    if (link.peer.word.is_open())
      ::send(link.peer.word.fd(), text.data(), text.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
}

void Communicator::exchange(const std::vector<Out>& out, const std::vector<In>& in) {
  std::vector<Flow> flows(links_.size());
  for (std::size_t k = 0; k < links_.size(); ++k) {
    const std::uint64_t to_send = bytes_of(out[k]), to_come = bytes_of(in[k]);
    if (static_cast<int>(k) == rank_) {
      copy(out[k], in[k]);
      continue;
    }
    Flow& flow = flows[k];
    if (to_send > 0) {
      flow.out_head = {links_[k].sent++, to_send};
      flow.out.add(&flow.out_head, sizeof(Head));
      for (const auto& piece : out[k]) flow.out.add(piece.data(), piece.size());
      sent_bytes_ += static_cast<std::int64_t>(to_send);
    }
    if (to_come > 0) {
      flow.in_bytes = to_come;
      flow.in.add(&flow.in_head, sizeof(Head));
      for (const auto& piece : in[k]) flow.in.add(piece.data(), piece.size());
    }
  }
  while (step(flows)) {
  }
}

/// Moves what can be moved, and waits where nothing can. False: all is done.
bool Communicator::step(std::vector<Flow>& flows) {
  bool is_done = true;
  std::vector<pollfd> waiting;
  for (std::size_t k = 0; k < flows.size(); ++k) {
    const Peer& peer = links_[k].peer;
    if (!peer.word.is_open()) continue;
    Flow& flow = flows[k];
    if (flow.out.left() > 0) send_some(static_cast<int>(k), flow);
    if (flow.in.left() > 0) receive_some(static_cast<int>(k), flow);
    is_done &= flow.is_done();
    const int events = (flow.out.left() > 0 ? POLLOUT : 0) | (flow.in.left() > 0 ? POLLIN : 0);
    waiting.push_back({events != 0 ? peer.data.fd() : -1, static_cast<short>(events), 0});
    const bool may_speak = !links_[k].has_left;
    waiting.push_back({may_speak ? peer.word.fd() : -1, POLLIN, 0});
  }
  if (is_done) return false;
  ::poll(waiting.data(), waiting.size(), 1000);
  std::size_t i = 0;
  for (std::size_t k = 0; k < flows.size(); ++k) {
    if (!links_[k].peer.word.is_open()) continue;
    if (waiting[i + 1].revents != 0) listen(static_cast<int>(k));
    i += 2;
  }
  check_patience(flows);
  return true;
}

void Communicator::send_some(int k, Flow& flow) {
  const msghdr message = flow.out.next();
  const ssize_t n = ::sendmsg(links_[static_cast<std::size_t>(k)].peer.data.fd(), &message,
                              MSG_NOSIGNAL | MSG_DONTWAIT);
  if (n < 0 && !is_temporary(errno)) fail(k);
  if (n <= 0) return;
  flow.out.advance(static_cast<std::size_t>(n));
  flow.last = Clock::now();
}

void Communicator::receive_some(int k, Flow& flow) {
  Link& link = links_[static_cast<std::size_t>(k)];
  msghdr message = flow.in.next();
  const ssize_t n = ::recvmsg(link.peer.data.fd(), &message, MSG_DONTWAIT);
  if (n == 0 || (n < 0 && !is_temporary(errno))) fail(k);
  if (n < 0) return;
  flow.in.advance(static_cast<std::size_t>(n));
  flow.last = Clock::now();
  if (flow.head_checked || flow.in.left() > flow.in_bytes) return;
  const Head& head = flow.in_head;
  if (head.number != link.received || head.bytes != flow.in_bytes)
    throw RankFailure(name_of(members_[static_cast<std::size_t>(k)], members_.size()) +
                      " sends message " + std::to_string(head.number) + " of " +
                      std::to_string(head.bytes) + " bytes, expected message " +
                      std::to_string(link.received) + " of " + std::to_string(flow.in_bytes) +
                      "; do all ranks run the same program with the same configuration?");
  flow.head_checked = true;
  ++link.received;
}

/// Reads what a rank says for the last time; a rank that has said nothing and is gone fails.
void Communicator::listen(int k) {
  Link& link = links_[static_cast<std::size_t>(k)];
  char text[4096];
  for (;;) {
    const ssize_t n = ::recv(link.peer.word.fd(), text, sizeof text, MSG_DONTWAIT);
    if (n < 0 && is_temporary(errno)) return;
    if (n <= 0) break;
    link.word.append(text, static_cast<std::size_t>(n));
    link.has_left = link.word.front() == farewell;
    if (!link.has_left) fail(k);
  }
  link.is_gone = true;
  if (!link.has_left) fail(k);
}

/// Waits a moment for the last word of a rank that is gone, or seems to be.
void Communicator::fail(int k) {
  Link& link = links_[static_cast<std::size_t>(k)];
  const auto end = Clock::now() + 2s;
  char text[4096];
  while (!link.is_gone && Clock::now() < end) {
    pollfd one{link.peer.word.fd(), POLLIN, 0};
    ::poll(&one, 1, milliseconds_until(end));
    const ssize_t n = ::recv(one.fd, text, sizeof text, MSG_DONTWAIT);
    if (n > 0) link.word.append(text, static_cast<std::size_t>(n));
    link.is_gone = n == 0 || (n < 0 && !is_temporary(errno));
  }
  if (!link.word.empty() && link.word.front() == failure) throw RankFailure(link.word.substr(1));
  const std::string name = name_of(members_[static_cast<std::size_t>(k)], members_.size());
  if (!link.word.empty())
    throw RankFailure(name +
                      " has come to its end while others wait for it; do all ranks run the "
                      "same program with the same configuration?");
  throw RankFailure(name +
                    " ended without a word: it was killed, or the system had no memory left for "
                    "it");
}

void Communicator::check_patience(const std::vector<Flow>& flows) {
  for (std::size_t k = 0; k < flows.size(); ++k)
    if (!flows[k].is_done() && Clock::now() - flows[k].last > patience_)
      throw RankFailure(name_of(members_[k], members_.size()) + " was silent for " +
                        std::to_string(patience_.count()) +
                        " s: it hangs, or works longer than that; look at it, or raise "
                        "run.rank_timeout");
}

Communicator begin(const Place& place, const Meeting& meeting) {
  if (place.of == 1) return Communicator();
  return Communicator(place.rank, meet(place, meeting), meeting.patience);
}

}  // namespace dsa::ranks
