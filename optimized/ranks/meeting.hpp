// optimized/ranks/meeting.hpp — how the ranks of a job find each other.
//
// Rank 0 writes a file with its addresses and its port, which the others read: all ranks see the
// directory of the run, as they read its checkpoints. Then each rank has two connections to every
// other: one for data; and one for the last word of a rank that ends, which never waits behind
// data.
#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "optimized/ranks/member.hpp"
#include "optimized/ranks/place.hpp"
#include "optimized/ranks/socket.hpp"

namespace dsa::ranks {

struct Peer {
  Socket data, word;
};

struct Mesh {
  std::vector<Member> members;  // by rank
  std::vector<Peer> peers;      // by rank; one's own is empty
};

struct Meeting {
  std::filesystem::path file;  // what rank 0 writes, and removes once all have come
  std::chrono::seconds patience{600};
  std::function<void(const std::string& line)> say;
};

/// Waits for all ranks of the job. Error: not all came in time; the missing ones are named.
Mesh meet(const Place&, const Meeting&);

}  // namespace dsa::ranks
