#include "core/file.hpp"
#include "tests/ranks/support.hpp"

using namespace dsa;
using namespace dsa::test;
using namespace std::chrono_literals;
using Catch::Matchers::Contains;
using ranks::Communicator;
using ranks::In;
using ranks::Numbers;
using ranks::Out;

namespace {

/// Numbers that rank `from` sends to rank `to`: 0, 1 or many.
Index count(int from, int to) { return (3 * from + to) % 3 * 300'000; }

float number(int from, int to, Index i) {
  return static_cast<float>(1000 * from + 100 * to) + static_cast<float>(i % 100);
}

/// Everybody sends to everybody, in pieces; returns how many numbers came wrong.
Index wrong_numbers(Communicator& ranks) {
  const int me = ranks.rank(), n = ranks.size();
  std::vector<std::vector<float>> sent(static_cast<std::size_t>(n)), got(sent);
  std::vector<Out> out;
  std::vector<In> in;
  for (int k = 0; k < n; ++k) {
    const auto at = static_cast<std::size_t>(k);
    for (Index i = 0; i < count(me, k); ++i) sent[at].push_back(number(me, k, i));
    got[at].resize(static_cast<std::size_t>(count(k, me)), -1);
    const auto from = std::as_bytes(std::span(sent[at]));
    const auto to = std::as_writable_bytes(std::span(got[at]));
    out.push_back({from.first(from.size() / 2), from.subspan(from.size() / 2)});
    in.push_back({to.first(to.size() / 3), {}, to.subspan(to.size() / 3)});
  }
  ranks.exchange(out, in);
  Index wrong = 0;
  for (int k = 0; k < n; ++k)
    for (Index i = 0; i < count(k, me); ++i)
      wrong += got[static_cast<std::size_t>(k)][static_cast<std::size_t>(i)] != number(k, me, i);
  return wrong;
}

}  // namespace

TEST_CASE("everybody gets from everybody what was sent, piece by piece", "[ranks]") {
  for (const int n : {1, 2, 4}) {
    std::vector<Index> wrong(static_cast<std::size_t>(n), -1);
    std::vector<std::int64_t> bytes(static_cast<std::size_t>(n));
    check_no_failure(as_ranks(n, [&](Communicator& ranks) {
      const auto me = static_cast<std::size_t>(ranks.rank());
      wrong[me] = wrong_numbers(ranks) + wrong_numbers(ranks);
      bytes[me] = ranks.sent_bytes();
    }));
    for (int r = 0; r < n; ++r) {
      Index numbers = 0;
      for (int k = 0; k < n; ++k) numbers += k == r ? 0 : 2 * count(r, k);
      CHECK(wrong[static_cast<std::size_t>(r)] == 0);
      CHECK(bytes[static_cast<std::size_t>(r)] == 4 * numbers);
    }
  }
}

TEST_CASE("items that ranks divide come back in their order", "[ranks]") {
  for (const Index items : {0, 1, 5, 8}) {
    check_no_failure(as_ranks(3, [&](Communicator& ranks) {
      const auto all = divided(ranks, items, [](Index i) {
        return Numbers(static_cast<std::size_t>(i), static_cast<double>(i));
      });
      require(static_cast<Index>(all.size()) == items, "an item is missing");
      for (std::size_t i = 0; i < all.size(); ++i)
        require(all[i] == Numbers(i, static_cast<double>(i)), "an item is another");
    }));
  }
}

TEST_CASE("every rank fills its pieces for all", "[ranks]") {
  check_no_failure(as_ranks(3, [](Communicator& ranks) {
    std::vector<float> all(9, -1);
    std::vector<In> pieces;
    for (Index k = 0; k < 3; ++k)  // rank k has numbers k, k + 3 and k + 6
      pieces.push_back({ranks::room_of(&all[static_cast<std::size_t>(k)], 1),
                        ranks::room_of(&all[static_cast<std::size_t>(k + 3)], 1),
                        ranks::room_of(&all[static_cast<std::size_t>(k + 6)], 1)});
    for (std::size_t i = 0; i < 9; ++i)
      if (static_cast<int>(i % 3) == ranks.rank()) all[i] = static_cast<float>(i);
    fill_pieces(ranks, pieces);
    require(all == std::vector<float>{0, 1, 2, 3, 4, 5, 6, 7, 8}, "a piece is not filled");
  }));
}

TEST_CASE("rank 0's text is everybody's", "[ranks]") {
  check_no_failure(as_ranks(3, [](Communicator& ranks) {
    for (const std::string text : {"", "a text"})
      require(text_of_first(ranks, ranks.is_first() ? text : "another") == text, "it is not");
  }));
  const auto failed = as_ranks(3, [](Communicator& ranks) {
    require_same(ranks, "the data", ranks.rank() == 2 ? "x" : "y");
  });
  for (const std::string& sentence : failed)
    CHECK_THAT(sentence, Contains("the data of rank 2 differs from that of rank 0"));
}

TEST_CASE("what ends one rank is said by all", "[ranks]") {
  const auto sentences = as_ranks(4, [](Communicator& ranks) {
    barrier(ranks);
    require(ranks.rank() != 2, "the disk is full; make room");
    for (;;) barrier(ranks);
  });
  for (const std::string& sentence : sentences)
    CHECK_THAT(sentence, Contains("rank 2 of 4 (process ") && Contains("the disk is full"));
}

TEST_CASE("a rank that leaves before the others is named", "[ranks]") {
  const auto sentences = as_ranks(3, [](Communicator& ranks) {
    if (ranks.rank() != 1) barrier(ranks);
  });
  CHECK(sentences[1] == "");
  for (const std::size_t r : {0, 2})
    CHECK_THAT(sentences[r], Contains("rank 1 of 3") && Contains("has come to its end"));
}

TEST_CASE("ranks that do not run the same program are noticed", "[ranks]") {
  const auto sentences = as_ranks(2, [](Communicator& ranks) {
    std::vector<float> mine(ranks.rank() == 0 ? 10 : 11), theirs(10);
    std::vector<Out> out(2);
    std::vector<In> in(2);
    const auto other = static_cast<std::size_t>(1 - ranks.rank());
    out[other] = {std::as_bytes(std::span(mine))};
    in[other] = {std::as_writable_bytes(std::span(theirs))};
    ranks.exchange(out, in);
    barrier(ranks);
  });
  CHECK_THAT(sentences[0], Contains("of 44 bytes, expected message 0 of 40;"));
}

TEST_CASE("a rank that is silent is named after a while", "[ranks]") {
  const auto sentences = as_ranks(
      3,
      [](Communicator& ranks) {
        if (ranks.rank() == 1) std::this_thread::sleep_for(3s);
        barrier(ranks);
      },
      1s);
  for (const std::size_t r : {0, 2})
    CHECK_THAT(sentences[r], Contains("rank 1 of 3") && Contains("was silent for 1 s"));
}

TEST_CASE("ranks that do not come are named", "[ranks]") {
  const Scratch scratch;
  const ranks::Meeting meeting{scratch / "ranks.json", 1s, [](const std::string&) {}};
  CHECK_THROWS_WITH(ranks::begin({0, 3, "", ""}, meeting),
                    Contains("in vain for ranks 1, 2 of 3") && Contains("run.rank_timeout"));
  std::filesystem::remove(meeting.file);
  CHECK_THROWS_WITH(ranks::begin({1, 3, "", ""}, meeting),
                    Contains("in vain for rank 0 to write " + meeting.file.string()));
}

TEST_CASE("what a killed job left at the meeting place misleads nobody", "[ranks]") {
  const Scratch scratch;
  const ranks::Meeting meeting{scratch / "ranks.json", 60s, [](const std::string&) {}};
  const int closed = ranks::listen_anywhere().port;
  for (const std::string& left : {std::string("{\"job\": "), std::string("{}"),
                                  R"({"job":"mine","secret":"1","ranks":2,"port":)" +
                                      std::to_string(closed) + R"(,"addresses":["127.0.0.1"]})"}) {
    write_text(meeting.file, left);
    std::thread joiner([&] {
      Communicator job = ranks::begin({1, 2, "", "mine"}, meeting);
      barrier(job);
    });
    std::this_thread::sleep_for(50ms);
    Communicator job = ranks::begin({0, 2, "", "mine"}, meeting);
    barrier(job);
    joiner.join();
    CHECK(!std::filesystem::exists(meeting.file));
  }
}
