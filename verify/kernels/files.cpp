#include "verify/kernels/files.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "core/file.hpp"
#include "core/outputs.hpp"
#include "core/safetensors.hpp"
#include "core/temporary.hpp"
#include "verify/report/text.hpp"
#include "verify/report/values.hpp"

namespace dsa::verify::kernels {
namespace {

namespace fs = std::filesystem;

std::string file_of(const Case& c) {
  return std::string(c.op->name) + "." + c.name + ".safetensors";
}

/// Calls `visit` on every case that the options name and whose outputs a file may hold.
void for_each_case(const OpsOptions& options, const std::function<void(const Case&)>& visit) {
  if (!options.op.empty()) op_named(options.op);
  for (const Op& op : all_ops()) {
    if (!options.wants(op)) continue;
    const auto cases = op.cases(options.seed);
    for (std::size_t i = 0; i < cases.size(); ++i) {
      if (options.progress)
        options.progress(std::string(op.name), static_cast<int>(i), static_cast<int>(cases.size()));
      if (!options.wants(cases[i].dtype)) continue;
      Case c = cases[i]();
      if (!c.refusal.empty()) continue;
      allow_sums(c, options.sums);
      visit(c);
    }
  }
}

/// Why the kernel of this layout does not take the case; empty where it does.
std::string refusal(const PeerLayout* layout, const Case& c) {
  if (!layout) return "";
  return layout->op == c.op->name
             ? layout->refuses(c)
             : fmt::format("{} has no kernel for {}", layout->name, c.op->name);
}

Json entry_of(const Case& c, const PeerLayout* layout) {
  Json scalars = Json::object(), outputs = Json::object();
  for (const auto& [name, value] : c.scalars) scalars[name] = json_of(value);
  for (const auto& [name, array] : layout ? layout->outputs(c) : c.out)
    outputs[name] = {{"dtype", name_of(array.dtype())}, {"shape", array.shape()}};
  return {{"file", file_of(c)}, {"op", c.op->name},   {"case", c.name},
          {"dtype", c.dtype},   {"scalars", scalars}, {"outputs", outputs}};
}

/// The shape of a vector of the answers: of the output of that name, or flat.
std::vector<Index> shape_of(const Case& c, const std::string& name, std::size_t n) {
  const auto out = c.out.find(name);
  return out != c.out.end() ? out->second.shape() : std::vector<Index>{static_cast<Index>(n)};
}

/// Cases are written beside their directory, which has its name once all of them are there: it
/// never holds some of these and some of an earlier dump.
class CaseDirectory {
 public:
  explicit CaseDirectory(fs::path dir) : dir_(std::move(dir)) {
    if (!dir_.has_filename()) dir_ = dir_.parent_path();  // "DIR/" is "DIR"
    require(!fs::exists(dir_) || (fs::is_directory(dir_) && fs::is_empty(dir_)),
            "cannot write cases to " + dir_.string() +
                ": it exists, and is no empty directory; choose another name or remove it");
  }
  ~CaseDirectory() {
    if (!partial_.empty()) remove_temporary(partial_);
  }
  CaseDirectory(const CaseDirectory&) = delete;
  CaseDirectory& operator=(const CaseDirectory&) = delete;

  /// Where the next file goes; made when the first one comes.
  const fs::path& path() {
    if (partial_.empty())
      partial_ = make_temporary([&] {
        const fs::path partial = dir_.string() + ".partial";
        std::error_code reason;
        require(!fs::exists(partial), partial.string() +
                                          " exists: an earlier run was interrupted, or another is "
                                          "under way; remove it first");
        if (dir_.has_parent_path()) fs::create_directories(dir_.parent_path(), reason);
        check(reason);
        fs::create_directory(partial, reason);
        check(reason);
        return partial;
      });
    return partial_;
  }

  void commit() {
    std::error_code reason;
    rename_temporary(path(), dir_, reason);
    check(reason);
    partial_.clear();
  }

 private:
  void check(std::error_code reason) const {
    require(!reason, "cannot write cases to " + dir_.string() + ": " + reason.message());
  }

  fs::path dir_, partial_;
};

void write_case(const fs::path& dir, const Case& c, const PeerLayout* layout) {
  const Arrays inputs = layout ? layout->inputs(c) : c.in;
  std::vector<SafetensorsWriter::Declaration> tensors;
  for (const auto& [name, array] : inputs)
    tensors.push_back({"in." + name, array.dtype(), array.shape()});
  for (const auto* answers : {&c.want, &c.allowed})
    for (const auto& [name, values] : *answers)
      tensors.push_back({(answers == &c.want ? "want." : "allowed.") + name, Dtype::f64,
                         shape_of(c, name, values.size())});
  std::map<std::string, std::string> metadata = {
      {"op", std::string(c.op->name)}, {"case", c.name}, {"dtype", c.dtype}};
  for (const auto& [name, value] : c.scalars) metadata["scalar." + name] = fmt::format("{}", value);
  SafetensorsWriter file(dir / file_of(c), tensors, metadata);
  for (const auto& [name, array] : inputs) file.append(array.bytes());
  for (const auto* answers : {&c.want, &c.allowed})
    for (const auto& [name, values] : *answers) file.append_values(values);
  file.commit();
}

/// The tensors of a file that are called as these outputs.
Arrays outputs_in(const SafetensorsFile& file, const fs::path& path, const Arrays& outputs) {
  Arrays out;
  for (const auto& [name, asked] : outputs) {
    const StoredTensor& stored = file.at(name);
    require(is_decodable(stored.dtype), path.string() + ": " + name + " is " +
                                            std::string(name_of(stored.dtype)) +
                                            ", which has no numbers");
    Array array(stored.dtype, stored.shape);
    std::copy_n(stored.data, array.bytes().size(), array.bytes().data());
    out.emplace(name, std::move(array));
  }
  return out;
}

/// The outputs by the case, and, where they are wrong by the sums of fp32, by Hopper's.
CaseResult judge_by_sums(const Case& c, const Arrays& out, Sums sums) {
  CaseResult result = judge_outputs(c, out);
  if (result.failure.empty() || sums != Sums::fp32 || !c.allowed_on_hopper) return result;
  Case on_hopper = c;
  allow_sums(on_hopper, Sums::hopper_fp8);
  result.within_hopper = judge_outputs(on_hopper, out).failure.empty();
  return result;
}

CaseResult judge_file(const fs::path& path, const Case& c, const PeerLayout* layout, Sums sums) {
  if (const std::string why = refusal(layout, c); !why.empty()) return {why, "", 0, "", false};
  if (!fs::exists(path)) return {"there is no " + path.filename().string(), "", 0, "", false};
  const SafetensorsFile file = SafetensorsFile::open(path);  // damaged: bad input, no wrong kernel
  try {
    if (!layout) return judge_by_sums(c, outputs_in(file, path, c.out), sums);
    return judge_by_sums(c, layout->ours(c, outputs_in(file, path, layout->outputs(c))), sums);
  } catch (const Error& e) {
    return {"", e.what(), std::numeric_limits<double>::infinity(), "", false};
  }
}

KernelResult& row_of(std::vector<KernelResult>& rows, const Case& c, const PeerLayout* layout) {
  for (KernelResult& row : rows)
    if (row.op == c.op->name && row.dtype == c.dtype) return row;
  KernelResult row;
  row.op = c.op->name;
  row.dtype = c.dtype;
  row.backend = "files";
  if (layout) row.rung = layout->name;
  return rows.emplace_back(std::move(row));
}

}  // namespace

std::string dump_cases(const fs::path& dir, const OpsOptions& options, const PeerLayout* layout) {
  Json cases = Json::array();
  CaseDirectory directory(dir);
  for_each_case(options, [&](const Case& c) {
    if (!refusal(layout, c).empty()) return;
    write_case(directory.path(), c, layout);
    cases.push_back(entry_of(c, layout));
  });
  require(!cases.empty(),
          "no case is of this op, dtype and layout, nothing was written; docs/ops.md lists what "
          "there is");
  Json index = {{"seed", options.seed}, {"sums", name_of(options.sums)}, {"cases", cases}};
  if (layout) index["layout"] = layout->name;
  write_text(directory.path() / "index.json", json_text(index));
  directory.commit();
  return fmt::format("{} written to {}; outputs of the same names are judged by --against\n",
                     plural(static_cast<Index>(cases.size()), "case"), clean(dir.string()));
}

OpsReport check_files(const fs::path& dir, const OpsOptions& options, const PeerLayout* layout) {
  const auto start = std::chrono::steady_clock::now();
  require(fs::is_directory(dir), "--against " + dir.string() + " is not a directory");
  OpsReport report;
  for_each_case(options, [&](const Case& c) {
    row_of(report.rows, c, layout).add(c, judge_file(dir / file_of(c), c, layout, options.sums));
  });
  Index judged = 0;
  for (KernelResult& row : report.rows) {
    row.conclude();
    row.ran = Ran::host;
    judged += row.cases;
    if (row.cases > 0) continue;
    row.verdict = KernelVerdict::not_run;
    row.why = "no file of any case";
  }
  require(judged > 0, dir.string() + " has no file that is named as --dump names cases, e.g. " +
                          "OP.CASE.safetensors");
  conclude(report, options);
  report.receipt.seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

}  // namespace dsa::verify::kernels
