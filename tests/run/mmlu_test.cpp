// dsa-run mmlu: the release's files, lm-evaluation-harness' prompts, and the score.
#include "core/file.hpp"
#include "run/mmlu/csv.hpp"
#include "run/mmlu/report.hpp"
#include "tests/catch.hpp"
#include "tests/programs/programs.hpp"
#include "tests/run/speaker.hpp"

using Catch::Matchers::Contains;
using namespace dsa;
using namespace dsa::test;
using namespace dsa::run;
namespace fs = std::filesystem;

namespace {

const fs::path bundled = fs::path(source_dir()) / "data/mmlu";

std::vector<std::vector<std::string>> fields(const std::string& csv) {
  std::vector<std::vector<std::string>> all;
  for (const mmlu::CsvRow& row : mmlu::parse_csv(csv, "x.csv")) all.push_back(row.fields);
  return all;
}

/// An MMLU of one subject.
struct Release {
  Scratch scratch;

  Release(const std::string& dev, const std::string& test, const std::string& name = "virology") {
    for (const char* split : {"dev", "test"}) fs::create_directories(scratch / split);
    write_text(scratch.path() / "dev" / (name + "_dev.csv"), dev);
    write_text(scratch.path() / "test" / (name + "_test.csv"), test);
  }
  std::vector<mmlu::Subject> read(int shots = 1) const {
    return mmlu::read_subjects(scratch.path(), {}, shots, 0);
  }
};

}  // namespace

TEST_CASE("CSV is read as it was written", "[mmlu]") {
  using Rows = std::vector<std::vector<std::string>>;
  CHECK(fields("") == Rows{});
  CHECK(fields("a,b\nc,d") == Rows{{"a", "b"}, {"c", "d"}});
  CHECK(fields("a,b\r\n\r\nc,\r\n") == Rows{{"a", "b"}, {"c", ""}});
  CHECK(fields("\"a, \"\"b\"\"\",\"c\nd\"\ne,5\" disk\n") ==
        Rows{{"a, \"b\"", "c\nd"}, {"e", "5\" disk"}});
  CHECK(fields(" a , \r b\n") == Rows{{" a ", " \r b"}});
  CHECK(mmlu::parse_csv("\"a\nb\"\nc\n", "x.csv").back().line == 3);
  CHECK_THROWS_WITH(fields("a\n\"b\nc"), Contains("x.csv: the quote opened on line 2"));
  CHECK_THROWS_WITH(fields("\"a\"b,c"), Contains("on line 1 text follows a closing quote"));
}

TEST_CASE("prompts are lm-evaluation-harness' to the character", "[mmlu]") {
  const Json golden = read_json(bundled / "prompts.json");
  REQUIRE(golden.size() == 24);
  for (const Json& g : golden) {
    const auto subject = g["subject"].get<std::string>();
    const auto subjects = mmlu::read_subjects(bundled, {subject}, 5, 0);
    INFO(g.dump());
    CHECK(mmlu::prompt(subjects.front(), subjects.front().test.at(g["question"]), g["shots"]) ==
          g["prompt"]);
  }
}

TEST_CASE("the bundled set has MMLU's 57 subjects", "[mmlu]") {
  const auto subjects = mmlu::read_subjects(bundled, {}, 5, 2);
  CHECK(subjects.size() == 57);
  std::map<std::string, int> groups;
  for (const auto& s : subjects) {
    ++groups[s.group];
    CHECK(s.dev.size() == 5);
    CHECK(s.test.size() == 2);
  }
  CHECK(groups == std::map<std::string, int>{
                      {"humanities", 13}, {"other", 13}, {"social_sciences", 12}, {"stem", 19}});
}

TEST_CASE("a release that is none is refused in one sentence", "[mmlu]") {
  const std::string good = "q,a,b,c,d,A\n";
  CHECK(Release(good, good).read().front().test.front().answer == 0);
  CHECK_THROWS_WITH(Release(good, "q,a,b,c,A\n").read(), Contains("line 1 has 5 columns"));
  CHECK_THROWS_WITH(Release(good, good + "q,a,b,c,d,E\n").read(),
                    Contains("line 2 has the answer \"E\", expected A, B, C or D"));
  CHECK_THROWS_WITH(Release(good, "").read(), Contains("has no rows"));
  CHECK_THROWS_WITH(Release(good, "q,a,b,c,\xFF,A\n").read(), Contains("not UTF-8"));
  CHECK_THROWS_WITH(Release(good, good).read(2),
                    Contains("has 1 examples, but --shots asks for 2"));
  CHECK_THROWS_WITH(Release(good, good, "alchemy").read(),
                    Contains("\"alchemy\" is none of MMLU's 57 subjects"));
  CHECK_THROWS_WITH(mmlu::read_subjects(bundled / "dev", {}, 5, 0), Contains("is no directory"));
  CHECK_THROWS_WITH(mmlu::read_subjects(bundled, {"virology", "virology"}, 5, 0),
                    Contains("names a subject twice"));
}

TEST_CASE("what prompts share is run once, and the log-likelihoods are those of whole passes",
          "[mmlu]") {
  const Speaker speaker;
  const auto subjects = mmlu::read_subjects(bundled, {"anatomy", "formal_logic"}, 1, 2);
  Session session(speaker.engine());
  const auto got = mmlu::evaluate(subjects, 1, *speaker.tokenizer, session, nullptr);
  CHECK(got.reused_tokens > got.tokens / 4);
  int compared = 0;
  for (std::size_t s = 0; s < subjects.size(); ++s)
    for (std::size_t q = 0; q < subjects[s].test.size(); ++q)
      for (const int i : {0, 3}) {
        const std::string before = mmlu::prompt(subjects[s], subjects[s].test[q], 1);
        const auto tokens = speaker.tokenizer->encode(before + " " + mmlu::letter(i), true);
        const auto first = speaker.tokenizer->encode(before, true).size();
        const auto rows = speaker.log_probabilities(tokens);
        double want = 0;
        for (std::size_t t = first; t < tokens.size(); ++t)
          want += rows[t - 1][static_cast<std::size_t>(tokens[t])];
        CHECK(got.subjects[s].answers[q].log_likelihood[static_cast<std::size_t>(i)] == want);
        ++compared;
      }
  CHECK(compared == 8);
}

TEST_CASE("a prompt that is too long loses its beginning", "[mmlu]") {
  const Speaker speaker;
  Json json = read_json(speaker.dir / "config.json");
  json["max_position_embeddings"] = 40;
  write_text(speaker.dir / "config.json", json.dump());
  const auto subjects = mmlu::read_subjects(bundled, {"anatomy"}, 1, 1);
  Session session(speaker.engine());
  const auto got = mmlu::evaluate(subjects, 1, *speaker.tokenizer, session, nullptr);
  CHECK(got.cut_prompts == 1);
  const std::string before = mmlu::prompt(subjects[0], subjects[0].test[0], 1);
  auto tokens = speaker.tokenizer->encode(before + " B", true);
  const auto cut = tokens.size() - 40;
  const auto first = speaker.tokenizer->encode(before, true).size() - cut;
  tokens.erase(tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(cut));
  const auto rows = speaker.log_probabilities(tokens);
  double want = 0;
  for (std::size_t t = first; t < tokens.size(); ++t)
    want += rows[t - 1][static_cast<std::size_t>(tokens[t])];
  CHECK(got.subjects[0].answers[0].log_likelihood[1] == want);
}

TEST_CASE("accuracies are means over questions, with the error of a pooled sample", "[mmlu]") {
  const auto answers = [](int right, int wrong) {
    mmlu::SubjectAnswers s{"virology", "other", {}};
    for (int i = 0; i < right + wrong; ++i)
      s.answers.push_back({{-3, -1, -1, -2}, i < right ? 1 : 2});  // among equals the first: B
    return s;
  };
  mmlu::Accuracy one;
  one.add(answers(1, 1));
  CHECK(one.mean() == 0.5);
  CHECK(*one.standard_error() == 0.5);  // sqrt((2 * 1/4) / (2 - 1) / 2)
  mmlu::Accuracy both = one;
  both.add(answers(1, 3));
  CHECK(both.mean() == 2.0 / 6);
  CHECK(*both.standard_error() == std::sqrt((0.5 + 0.75) / (6 - 2) / 6));
  mmlu::Accuracy single;
  single.add(answers(1, 0));
  CHECK_FALSE(single.standard_error().has_value());
}

TEST_CASE("dsa-run mmlu prints scores and writes them with a receipt", "[mmlu]") {
  const Speaker speaker;
  const std::string ask = "dsa-run mmlu " + speaker.dir.string() + " --format fp32 --data ";
  const fs::path json = speaker.scratch / "scores.json";
  const Outcome done =
      test::run(ask + bundled.string() +
                " --subjects anatomy,virology --shots 1 --limit 1 --json " + json.string());
  CHECK(done.status == 0);
  CHECK_THAT(done.out, Contains("anatomy ") && Contains("stem ") && Contains("all "));
  const Json scores = read_json(json);
  CHECK(scores["all"]["questions"] == 2);
  CHECK(scores["subjects"]["virology"]["answers"][0]["log_likelihoods"].size() == 4);
  CHECK(scores["receipt"]["shots"] == 1);
  CHECK(scores["receipt"]["data_sha256"].get<std::string>().size() == 64);
  CHECK_THAT(complaint(ask + "/nowhere"), Contains("is no directory"));
  CHECK_THAT(complaint(ask + bundled.string() + " --subjects alchemy"), Contains("57 subjects"));
  CHECK_THAT(complaint(ask + bundled.string() + " --shots 6 --subjects anatomy"),
             Contains("has 5 examples"));
}
