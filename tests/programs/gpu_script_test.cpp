// experiments/device/gpu.py, as far as it goes without a device.
#include "core/json.hpp"
#include "tests/paths.hpp"
#include "tests/programs/programs.hpp"
#include "tests/skip.hpp"

using Catch::Matchers::Contains;
using namespace dsa;
using namespace dsa::test;

namespace {

/// Runs the script with `path` before the PATH, and no device.
Outcome gpu(const std::string& arguments, const std::string& path = "") {
  const Scratch scratch;
  const std::string out = (scratch / "out").string(), err = (scratch / "err").string();
  const std::string command =
      "CUDA_VISIBLE_DEVICES= " + (path.empty() ? "" : "PATH=" + path + ":$PATH ") + "python3 " +
      source_dir() + "/experiments/device/gpu.py " + arguments + " >" + out + " 2>" + err;
  const int status = std::system(command.c_str());
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, read_text(out), read_text(err)};
}

void write_program(const std::filesystem::path& file, const std::string& text) {
  std::filesystem::create_directories(file.parent_path());
  write_text(file, "#!/bin/sh\n" + text + "\n");
  std::filesystem::permissions(file, std::filesystem::perms::owner_all);
}

}  // namespace

TEST_CASE("without a device, or a compiler for it, the script says so and stops", "[gpu]") {
  const Scratch dir;
  write_program(dir / "none" / "nvidia-smi", "exit 9");
  const Outcome none = gpu("", (dir / "none").string());
  CHECK(none.status == 2);
  CHECK_THAT(none.err, Contains("expected an NVIDIA device"));
  CHECK(std::count(none.err.begin(), none.err.end(), '\n') == 1);

  write_program(dir / "old" / "nvidia-smi", "echo 'NVIDIA H100 80GB HBM3, 570.1, 9.0, 81559 MiB'");
  write_program(dir / "old" / "nvcc", "echo 'Cuda compilation tools, release 12.4, V12.4.131'");
  const Outcome old = gpu("", (dir / "old").string());
  CHECK(old.status == 2);
  CHECK_THAT(old.err, Contains("expected nvcc 12.8 or later, but this is 12.4"));
}

TEST_CASE("programs built elsewhere need no compiler, and may not pass without a device", "[gpu]") {
  const Scratch dir;
  write_program(dir / "device" / "nvidia-smi", "echo 'No such GPU, 570.1, 9.0, 81559 MiB'");
  const Outcome result =
      gpu("--built " + binary_dir() + " --only suite --only golden --out " + dir.path().string(),
          (dir / "device").string());
  INFO(result.out << result.err);
  CHECK(result.status == 1);
  const Json steps = read_json(dir / "gpu-no-such-gpu.json")["steps"];
  CHECK(steps.size() == 2);  // no build
  for (const char* name : {"suite", "golden"}) CHECK(steps[name]["status"] == "fail");
}

TEST_CASE("every step is rehearsed on the host, and a receipt written", "[gpu]") {
  const Scratch dir;
  write_program(dir / "tools" / "compute-sanitizer", "shift 4; exec \"$@\"");
  const Outcome result = gpu("--rehearse " + binary_dir() +
                                 " --only suite --only sanitizers "
                                 "--only benchmarks --only golden --only decode --out " +
                                 dir.path().string(),
                             (dir / "tools").string());
  INFO(result.out << result.err);
  CHECK(result.status == 0);
  const Json receipt = read_json(dir / "gpu-rehearsal.json");
  const Json& steps = receipt["steps"];
  for (const char* name : {"suite", "sanitizers", "benchmarks", "golden", "decode"})
    CHECK(steps[name]["status"] == "pass");
  for (const Json& row : steps["suite"]["rows"]) CHECK(row["ran"] == "host");
  CHECK_THAT(steps["sanitizers"]["why"].get<std::string>(), Contains("racecheck"));
  CHECK(steps["benchmarks"]["rows"].size() > 20);
  CHECK(steps["benchmarks"]["rows"][0]["of_roof"].get<double>() > 0);
  CHECK_THAT(result.out, Contains("of the roof"));
  CHECK_FALSE(std::filesystem::exists(dir / "gpu-rehearsal.partial"));
}

TEST_CASE("a step that fails stops no other, and the exit status says so", "[gpu]") {
  const Scratch dir;
  write_program(dir / "bin" / "dsa-verify", "echo it broke; exit 2");
  write_program(dir / "bin" / "dsa-bench", "echo no; exit 1");
  write_program(dir / "tools" / "compute-sanitizer", "[ $2 = racecheck ] && exit 86; exit 0");
  const Outcome result =
      gpu("--rehearse " + (dir / "bin").string() + " --out " + dir.path().string(),
          (dir / "tools").string());
  CHECK(result.status == 1);
  const Json steps = read_json(dir / "gpu-rehearsal.json")["steps"];
  CHECK(steps.size() == 7);
  CHECK(steps["suite"]["why"] == "it broke");
  CHECK_THAT(steps["sanitizers"]["why"].get<std::string>(), Contains("racecheck finds something"));
  CHECK(steps["benchmarks"]["status"] == "fail");
  CHECK(steps["decode"]["status"] == "absent");
}

TEST_CASE("a quick run has three steps, and the sanitizers run alone where asked", "[gpu]") {
  const Scratch dir;
  write_program(dir / "bin" / "dsa-verify", "exit 2");
  write_program(dir / "bin" / "dsa-bench", "exit 2");
  write_program(dir / "tools" / "compute-sanitizer",
                "case \"$*\" in *'--max-flops 100000.0 --runs 1') exit 0; esac; exit 1");
  const std::string rehearse =
      "--rehearse " + (dir / "bin").string() + " --out " + dir.path().string();
  const std::string tools = (dir / "tools").string();
  CHECK(gpu(rehearse + " --quick", tools).status == 1);
  const Json quick = read_json(dir / "gpu-rehearsal.json")["steps"];
  CHECK(quick.size() == 3);
  CHECK(quick.contains("suite"));
  CHECK(gpu(rehearse + " --only-sanitizers", tools).status == 0);
  CHECK(read_json(dir / "gpu-rehearsal.json")["steps"].size() == 1);
  CHECK(gpu(rehearse + " --quick --only suite", tools).status == 2);
}

TEST_CASE("receipts are shown again, beside published kernels of the same card", "[gpu]") {
  const std::string receipt = source_dir() + "/experiments/results/gpu-h200-1fa9106";
  const Outcome shown = gpu("--show " + receipt + ".json " + receipt + "-more.json");
  CHECK(shown.status == 0);
  CHECK_THAT(shown.out, Contains("51.226 ms") && Contains("torch 22.792 ms"));
  CHECK_THAT(shown.out, Contains("3.436 ms, FlashMLA: published kernel, same card, another run"));
  CHECK_THAT(shown.out, Contains("91 kernels on the device, 2282 cases"));
}

TEST_CASE("other people's kernels are called as their sources say, by stand-ins", "[gpu]") {
  if (std::system("python3 -c 'import safetensors, torch' 2>/dev/null") != 0)
    return skip("python3 has no torch: the stand-ins of tests/peers are not run");
  const Scratch dir;
  const Outcome result = gpu("--rehearse " + binary_dir() + " --only peers --source " +
                             source_dir() + "/tests/peers --out " + dir.path().string());
  INFO(result.out << result.err);
  const Json peers = read_json(dir / "gpu-rehearsal.json")["steps"]["peers"];
  CHECK(peers["status"] == "pass");
  CHECK(peers["absent"].empty());
  for (const auto& [name, peer] : peers["peers"].items())
    for (const Json& row : peer["rows"]) {
      INFO(name << ": " << row.dump(1));
      const bool sums_on_hopper = name.starts_with("deepgemm") && row["cases"] > 0;
      CHECK((row["verdict"] == "fail") == sums_on_hopper);
      CHECK(row["advice"].is_null() == !sums_on_hopper);
    }
}
