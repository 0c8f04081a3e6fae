// dsa-run generate and tokenize as a user meets them.
#include "tests/paths.hpp"
#include "tests/programs/programs.hpp"
#include "tests/tiny_checkpoint.hpp"
#include "text/chat.hpp"

using namespace dsa;
using namespace dsa::test;
using Catch::Contains;
namespace fs = std::filesystem;

namespace {

/// A tiny model of random weights that reads and writes with the deepseek sample's tokenizer.
struct Speaker {
  Scratch scratch;
  fs::path dir = scratch / "model";

  Speaker() {
    Json json = tiny_config();
    json["vocab_size"] = 650;  // a few more than the tokenizer has
    write_checkpoint(dir, json, tiny_tensors(json));
    fs::copy(fs::path(source_dir()) / "data/text/deepseek/tokenizer.json", dir);
  }

  std::string generate(const std::string& options) const {
    return "dsa-run generate " + dir.string() + " --format fp32 " + options;
  }
  std::string tokenize(const std::string& options) const {
    return "dsa-run tokenize " + dir.string() + " " + options;
  }
};

}  // namespace

TEST_CASE("the same seed says the same, another something else", "[text]") {
  const Speaker speaker;
  const std::string ask = speaker.generate("--prompt hello --max-tokens 20 ");
  const Outcome greedy = run(ask);
  CHECK(greedy.status == 0);
  CHECK(greedy.out.ends_with('\n'));
  CHECK_THAT(greedy.err, Contains("prompt ") && Contains("20 tokens"));
  CHECK(run(ask + "--top-p 0.5 --seed 9").out == greedy.out);  // temperature 0
  const Outcome drawn = run(ask + "--temperature 1 --seed 9");
  CHECK(drawn.out == run(ask + "--temperature 1 --seed 9").out);
  CHECK(drawn.out != run(ask + "--temperature 1 --seed 10").out);
  CHECK(drawn.out != greedy.out);
}

TEST_CASE("the kernels of CUDA, on the processor, say what the CPU says", "[text]") {
  const Speaker speaker;
  const std::string ask = speaker.generate("--prompt hello --max-tokens 6 ");
  const Outcome cpu = run(ask), cuda = run(ask + "--backend cuda-host");
  CHECK(cuda.status == 0);
  CHECK(cuda.out == cpu.out);
}

TEST_CASE("eos_token_id ends the text", "[text]") {
  const Speaker speaker;
  const std::string ask = speaker.generate("--prompt hello --chat none --max-tokens 1");
  const std::string first = run(ask).out;
  Json every = Json::array();
  for (int id = 0; id < 650; ++id) every.push_back(id);
  write_text(speaker.dir / "generation_config.json", Json{{"eos_token_id", every}}.dump());
  const Outcome ended = run(ask);
  CHECK(ended.out == "\n");
  CHECK(first != "\n");
  CHECK_THAT(ended.err, Contains("0 tokens") && Contains("the model ended its text"));
  write_text(speaker.dir / "generation_config.json", R"({"eos_token_id": "x"})");
  CHECK_THAT(complaint(ask), Contains("eos_token_id") && Contains("a token id"));
}

TEST_CASE("a conversation says what its whole text would lead to", "[text]") {
  const Speaker speaker;
  for (const bool think : {false, true}) {
    const std::string options =
        std::string("--max-tokens 12 --system Rules ") + (think ? "--think " : "");
    const std::string spoken = (speaker.scratch / "spoken").string();
    write_text(spoken, "hello\n\nand then?\n");
    const Outcome talk = run(speaker.generate("--interactive " + options + "<" + spoken));
    const Outcome first = run(speaker.generate(options + "--prompt hello"));
    REQUIRE(talk.out.starts_with(first.out));
    using Role = text::Message::Role;
    const std::string said = first.out.substr(0, first.out.size() - 1);
    const std::vector<text::Message> messages = {{Role::system, "Rules"},
                                                 {Role::user, "hello"},
                                                 {Role::assistant, text::answer_of(said, think)},
                                                 {Role::user, "and then?"}};
    write_text(speaker.scratch / "whole", text::render(text::ChatFormat::v3_2, messages, think));
    const Outcome second = run(speaker.generate("--max-tokens 12 --chat none --prompt-file " +
                                                (speaker.scratch / "whole").string()));
    CHECK(talk.out == first.out + second.out);
    CHECK_THAT(talk.err, Contains("were in the cache"));
  }
}

TEST_CASE("a closed pipe and a full disk end generation in one sentence", "[text]") {
  const Speaker speaker;
  const std::string endless =
      speaker.generate("--prompt a --temperature 1 --max-tokens 1000000000");
  const std::string program = binary_dir() + "/" + endless;
  const auto err = speaker.scratch / "err", status = speaker.scratch / "status";
  const std::string piped = "{ " + program + " 2>" + err.string() + "; echo $? >" +
                            status.string() + "; } | head -c 5 >/dev/null";
  CHECK(std::system(piped.c_str()) == 0);
  CHECK(read_text(status) == "2\n");
  CHECK(read_text(err) == "dsa-run: cannot write the text to stdout: Broken pipe\n");
  const std::string full = program + " >/dev/full 2>" + err.string();
  CHECK(WEXITSTATUS(std::system(full.c_str())) == 2);
  CHECK_THAT(read_text(err), Contains("No space left"));
}

TEST_CASE("Ctrl-C ends generation after a whole character", "[text]") {
  const Speaker speaker;
  const std::string program =
      binary_dir() + "/" + speaker.generate("--prompt a --temperature 1 --max-tokens 1000000000");
  const std::string out = (speaker.scratch / "out").string(),
                    err = (speaker.scratch / "err").string();
  const std::string command = program + " >" + out + " 2>" + err + " & p=$!; while [ ! -s " + out +
                              " ] && kill -0 $p; do sleep 0.02; done; kill -INT $p; wait $p";
  CHECK(WEXITSTATUS(std::system(command.c_str())) == 130);
  CHECK_THAT(read_text(err), Contains("(interrupted)\ndsa-run: interrupted\n"));
  CHECK_NOTHROW(text::Tokenizer::read(speaker.dir).encode(read_text(out), false));
  CHECK(read_text(out).ends_with('\n'));
}

TEST_CASE("generate refuses bad input in one sentence", "[text]") {
  const Speaker speaker;
  write_text(speaker.scratch / "bad", "ab\xFF");
  const auto refused = [&](const std::string& options, const std::string& because) {
    CHECK_THAT(complaint(speaker.generate(options)), Contains(because));
  };
  refused("--prompt-file " + (speaker.scratch / "bad").string(), "not UTF-8 at byte 2 of 3");
  refused("--prompt-file " + (speaker.scratch / "none").string(), "none");
  refused("--prompt '' --chat none", "the prompt is empty");
  refused("--prompt a --chat v4", "expected none, v3.1 or v3.2");
  refused("--prompt a --chat none --think", "need a chat format");
  refused("--interactive --chat none </dev/null", "need a chat format");
  refused("--interactive --prompt a", "--interactive");
  refused("--prompt a --temperature -1", "--temperature");
  refused("--prompt a --top-p 1.5", "--top-p");
  refused("--prompt a --max-tokens 0", "--max-tokens");
  refused("--prompt a --memory 1KB", "leaves no room");
  Json json = read_json(speaker.dir / "config.json");
  json["vocab_size"] = 640;
  write_checkpoint(speaker.dir, json, tiny_tensors(json));
  refused("--prompt a", "vocab_size is 640");
  fs::remove(speaker.dir / "tokenizer.json");
  refused("--prompt a", "tokenizer.json");
}

TEST_CASE("tokenize there and back", "[text]") {
  const Speaker speaker;
  const Outcome ids = run(speaker.tokenize("--prompt 'Hello 深度 <think>'"));
  CHECK(ids.status == 0);
  CHECK(Json::parse(ids.out).is_array());
  const Outcome back = run(speaker.tokenize("--decode --prompt '" + ids.out + "'"));
  CHECK(back.out == "Hello 深度 <think>");
  CHECK_THAT(complaint(speaker.tokenize("--decode --prompt '[1, 644]'")),
             Contains("token id 644 is out of range") && Contains("0 to 643"));
  CHECK_THAT(complaint(speaker.tokenize("--decode --prompt '[1, -1]'")), Contains("holds -1"));
  CHECK_THAT(complaint(speaker.tokenize("--decode --prompt 7")), Contains("a list"));
  CHECK(run("dsa-run tokenize " + speaker.dir.string() +
            " --prompt a 2>/dev/null >/dev/full; echo $?")
            .out == "2\n");
}
