#include "optimized/ranks/meeting.hpp"

#include <poll.h>
#include <sys/resource.h>

#include <algorithm>
#include <random>
#include <thread>

#include "core/check.hpp"
#include "core/file.hpp"

namespace dsa::ranks {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;

constexpr const char* word = "word";
constexpr const char* data = "data";

/// What rank 0 writes.
struct Invitation {
  std::string job, secret;
  int of = 0, port = 0;
  std::vector<std::string> addresses;
};

std::string text_of(const Invitation& i) {
  return Json{{"job", i.job},
              {"secret", i.secret},
              {"ranks", i.of},
              {"port", i.port},
              {"addresses", i.addresses}}
             .dump() +
         "\n";
}

/// Nothing: there is none yet, it is half-written, or it is of another job.
std::optional<Invitation> read_invitation(const fs::path& file, const Place& place) {
  std::error_code ignored;
  if (!fs::is_regular_file(file, ignored)) return {};
  try {
    const Json json = Json::parse(read_text(file));
    Invitation i{json.at("job").get<std::string>(), json.at("secret").get<std::string>(),
                 json.at("ranks").get<int>(), json.at("port").get<int>(),
                 json.at("addresses").get<std::vector<std::string>>()};
    if (i.job != place.job || i.of != place.of) return {};
    return i;
  } catch (const std::exception&) {
    return {};
  }
}

std::string hello(const std::string& secret, const char* kind, const Member& self) {
  return Json{{"secret", secret}, {"kind", kind}, {"member", to_json(self)}}.dump();
}

struct Hello {
  bool is_word = false;
  Member member;
};

/// Nothing: whoever it is, it is no rank of this job.
std::optional<Hello> read_hello(const Socket& socket, const std::string& secret) {
  const auto text = receive_message(socket, Clock::now() + 5s);
  const Json json = text ? Json::parse(*text, nullptr, false) : Json();
  if (!json.is_object() || json.value("secret", "") != secret) return {};
  return Hello{json.at("kind") == word, member_of(json.at("member"))};
}

/// A rank while the others come.
class Attendant {
 public:
  Attendant(const Place& place, const Meeting& meeting)
      : place_(place),
        meeting_(meeting),
        deadline_(Clock::now() + meeting.patience),
        listener_(listen_anywhere()),
        self_(this_process(place.rank)) {
    self_.port = listener_.port;
    mesh_.peers.resize(static_cast<std::size_t>(place.of));
    mesh_.members.resize(static_cast<std::size_t>(place.of));
  }

  Mesh host() {
    secret_ = std::to_string(std::random_device{}()) + std::to_string(std::random_device{}());
    invite();
    mesh_.members[0] = self_;
    accept_until([&] { return missing(true).empty(); });
    std::error_code ignored;
    fs::remove(meeting_.file, ignored);
    Json table = Json::array();
    for (const Member& member : mesh_.members) table.push_back(to_json(member));
    for (int k = 1; k < place_.of; ++k)
      require(send_message(at(k).word, table.dump(), deadline_), gone(k));
    accept_until([&] { return missing(false).empty(); });
    return std::move(mesh_);
  }

  Mesh join() {
    Peer& first = at(0);
    std::string address;
    while (!first.word.is_open()) find_host(first, address);
    const auto table = receive_message(first.word, deadline_);
    require(table.has_value(), gone(0));
    for (const Json& one : Json::parse(*table)) {
      const Member member = member_of(one);
      mesh_.members.at(static_cast<std::size_t>(member.rank)) = member;
    }
    for (Member& member : mesh_.members)  // of rank 0, and of ranks of its machine as it sees them
      if (member.address.empty() || member.address.starts_with("127.")) member.address = address;
    first.data = connect(0, data);
    for (int k = 1; k < place_.rank; ++k) at(k) = {connect(k, data), connect(k, word)};
    accept_until([&] { return missing(true).empty() && missing(false).empty(); });
    return std::move(mesh_);
  }

 private:
  Peer& at(int rank) { return mesh_.peers[static_cast<std::size_t>(rank)]; }

  void invite() const {
    const fs::path directory = meeting_.file.parent_path();
    std::error_code reason;
    fs::create_directories(directory, reason);
    require(!reason, "cannot create " + directory.string() + ": " + reason.message());
    write_text(meeting_.file,
               text_of({place_.job, secret_, place_.of, listener_.port, own_addresses()}));
  }

  /// Ranks above this one whose connection of one kind is not there.
  std::vector<int> missing(bool of_words) {
    std::vector<int> ranks;
    for (int k = place_.rank + 1; k < place_.of; ++k)
      if (!(of_words ? at(k).word : at(k).data).is_open()) ranks.push_back(k);
    return ranks;
  }

  template <class Done>
  void accept_until(Done done) {
    auto next_word = Clock::now() + 10s;
    while (!done()) {
      require(Clock::now() < deadline_, late());
      Socket socket = accept_from(listener_, std::min(deadline_, next_word));
      if (socket.is_open()) welcome(std::move(socket));
      if (Clock::now() < next_word) continue;
      if (place_.rank == 0) meeting_.say("waiting for " + missing_text() + ", to come");
      next_word = Clock::now() + 60s;
    }
  }

  std::string missing_text() {
    std::vector<int> ranks = missing(true);
    for (const int k : missing(false))
      if (std::find(ranks.begin(), ranks.end(), k) == ranks.end()) ranks.push_back(k);
    std::string text = ranks.size() == 1 ? "rank" : "ranks";
    constexpr std::size_t most = 8;
    for (std::size_t i = 0; i < std::min(ranks.size(), most); ++i)
      text += (i > 0 ? ", " : " ") + std::to_string(ranks[i]);
    if (ranks.size() > most) text += " and " + std::to_string(ranks.size() - most) + " more";
    return text + " of " + std::to_string(place_.of);
  }

  std::string late() {
    return "rank " + std::to_string(place_.rank) + " waited " +
           std::to_string(meeting_.patience.count()) + " s in vain for " + missing_text() +
           "; see why they did not start, or raise run.rank_timeout";
  }

  std::string gone(int k) const {
    return "rank " + std::to_string(k) + " of " + std::to_string(place_.of) +
           " ended while the ranks met; see its last line, and start the job again";
  }

  void welcome(Socket socket) {
    std::optional<Hello> hello = read_hello(socket, secret_);
    if (!hello) return;
    const int k = hello->member.rank;
    if (k <= place_.rank || k >= place_.of) return;
    if (place_.rank == 0 && hello->is_word) {
      hello->member.address = address_of_peer(socket);
      mesh_.members[static_cast<std::size_t>(k)] = hello->member;
      if (!send_message(socket, secret_, deadline_)) return;
    }
    // A rank that had no answer comes again: its newer connection is the one it waits at.
    (hello->is_word ? at(k).word : at(k).data) = std::move(socket);
  }

  /// One try to reach rank 0.
  void find_host(Peer& host, std::string& reached) {
    require(Clock::now() < deadline_,
            "rank " + std::to_string(place_.rank) + " waited " +
                std::to_string(meeting_.patience.count()) + " s in vain for rank 0 to write " +
                meeting_.file.string() +
                "; do all ranks see this directory? see why rank 0 did not start, or raise "
                "run.rank_timeout");
    const auto invitation = read_invitation(meeting_.file, place_);
    if (invitation) {
      secret_ = invitation->secret;
      // Where rank 0 of a job that was killed has left its file, nobody answers, or a stranger.
      for (const std::string& address : invitation->addresses) {
        Socket socket = connect_to(address, invitation->port, Clock::now() + 3s);
        if (!socket.is_open() || !send_message(socket, hello(secret_, word, self_), deadline_) ||
            receive_message(socket, Clock::now() + 10s) != secret_)
          continue;
        host.word = std::move(socket);
        reached = address;
        return;
      }
    }
    std::this_thread::sleep_for(20ms);
  }

  Socket connect(int k, const char* kind) {
    const Member& member = mesh_.members[static_cast<std::size_t>(k)];
    Socket socket = connect_to(member.address, member.port, deadline_);
    require(socket.is_open() && send_message(socket, hello(secret_, kind, self_), deadline_),
            "rank " + std::to_string(place_.rank) + " cannot reach rank " + std::to_string(k) +
                " at " + member.address + "; may the hosts connect to each other on every port?");
    return socket;
  }

  const Place& place_;
  const Meeting& meeting_;
  Deadline deadline_;
  Listener listener_;
  Member self_;
  std::string secret_;
  Mesh mesh_;
};

/// Two connections to every other rank, and some files.
void allow_connections(int ranks) {
  struct rlimit limit {};
  const auto needed = static_cast<rlim_t>(2 * ranks + 256);
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= needed) return;
  limit.rlim_cur = std::min(needed, limit.rlim_max);
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

}  // namespace

Mesh meet(const Place& place, const Meeting& meeting) {
  allow_connections(place.of);
  Attendant attendant(place, meeting);
  return place.rank == 0 ? attendant.host() : attendant.join();
}

}  // namespace dsa::ranks
