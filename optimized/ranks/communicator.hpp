// optimized/ranks/communicator.hpp — messages between the ranks of a job.
//
// There is one operation, exchange(); collectives.hpp has what is made of it. All ranks call the
// same ones in the same order. A job of one rank calls them, too: nothing is sent.
//
// A rank that is gone, or silent for `patience`, ends the exchange of every other in an Error that
// names it; an Error that ends one rank by itself is told to the others (end()).
#pragma once

#include <cstdint>
#include <new>
#include <span>
#include <string>
#include <vector>

#include "core/check.hpp"
#include "optimized/ranks/meeting.hpp"

namespace dsa::ranks {

/// What goes to one rank, and where that comes from one rank lies: pieces, one after the other.
using Out = std::vector<std::span<const std::byte>>;
using In = std::vector<std::span<std::byte>>;

/// Another rank has ended, or hangs.
struct RankFailure : Error {
  using Error::Error;
};

class Communicator {
 public:
  Communicator();  // a job of one rank
  Communicator(int rank, Mesh, std::chrono::seconds patience);
  /// Tells the others that this rank ends as it should.
  ~Communicator();
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  int rank() const { return rank_; }
  int size() const { return static_cast<int>(members_.size()); }
  bool is_first() const { return rank_ == 0; }
  const std::vector<Member>& members() const { return members_; }

  /// Sends out[k] to rank k and receives in[k] from it, for all k at once. Empty: nothing, and no
  /// message. What a rank sends must be as long as what the other expects. out[rank()] is copied.
  void exchange(const std::vector<Out>& out, const std::vector<In>& in);

  /// Tells the others why this rank ends, in one sentence. Nothing may be exchanged afterwards.
  void end(const std::string& sentence);

  /// Bytes of all exchanges so far, to other ranks, without 16 of each message's head.
  std::int64_t sent_bytes() const { return sent_bytes_; }

 private:
  struct Flow;
  struct Link;

  bool step(std::vector<Flow>&);
  void send_some(int k, Flow&);
  void receive_some(int k, Flow&);
  void listen(int k);
  [[noreturn]] void fail(int k);
  void check_patience(const std::vector<Flow>&);

  int rank_ = 0;
  std::vector<Member> members_;
  std::vector<Link> links_;
  std::chrono::seconds patience_{0};
  std::int64_t sent_bytes_ = 0;
  bool has_ended_ = false;
};

/// The job of this process: waits for its other ranks, where there are some.
Communicator begin(const Place&, const Meeting&);

/// Calls f(ranks). What ends this rank is told to the others, and thrown again: an Error with this
/// rank's name before it, where there are others.
template <class F>
auto with_last_word(Communicator& ranks, F f) {
  const std::string name =
      name_of(ranks.members()[static_cast<std::size_t>(ranks.rank())], ranks.members().size());
  try {
    return f(ranks);
  } catch (const RankFailure& failure) {
    ranks.end(failure.what());
    throw;
  } catch (const std::bad_alloc&) {
    ranks.end(name + " ended: there is not enough memory");
    throw;
  } catch (const std::exception& error) {
    ranks.end(name + " ended: " + error.what());
    throw Error((ranks.size() > 1 ? name + ": " : "") + error.what());
  }
}

}  // namespace dsa::ranks
