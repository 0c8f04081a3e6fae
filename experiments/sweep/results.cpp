#include "experiments/sweep/results.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>

#include "core/check.hpp"
#include "core/file.hpp"
#include "core/outputs.hpp"
#include "experiments/sweep/lock.hpp"
#include "experiments/sweep/tables.hpp"

namespace dsa::sweep {
namespace {

namespace fs = std::filesystem;

/// "16" is the number 16 to a reader of results; "joint" stays a word.
Json value_of(const std::string& text) {
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{} || end != text.data() + text.size()) return text;
  return Json::parse(text, nullptr, false).is_number() ? Json::parse(text) : Json(text);
}

void collect(const Json& json, const std::string& path, std::map<std::string, double>& into) {
  if (json.is_number()) into[path] = json.get<double>();
  if (json.is_boolean()) into[path] = json.get<bool>() ? 1 : 0;
  if (!json.is_structured()) return;
  for (const auto& [key, value] : json.items())
    collect(value, path.empty() ? key : path + "." + key, into);
}

/// The JSON of a row, or nothing where the line is none.
std::optional<Row> row_of(const std::string& line) {
  const Json json = Json::parse(line, nullptr, false);
  if (!json.is_object() || !json.contains("id") || !json.contains("status")) return std::nullopt;
  try {
    Row row{json.at("id"),           json.at("status") == "done",          {}, {},
            json.value("error", ""), json.value("receipt", Json::object())};
    for (const auto& [axis, value] : json.at("axes").items()) row.axes[axis] = text_of(value, axis);
    row.metrics = json.value("metrics", std::map<std::string, double>());
    return row;
  } catch (const std::exception&) {
    return std::nullopt;
  }
}

std::string cut_sentence(const fs::path& file) {
  return file.string() +
         " ended in the middle of a row; the cut row is left out, and its point runs again";
}

/// Writes all of the text at the end of the file, or leaves the file as it was.
void write_at_end(const fs::path& file, const std::string& text) {
  const int number = ::open(file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  require(number >= 0,
          "cannot write " + file.string() + ": " + std::generic_category().message(errno));
  const off_t before = ::lseek(number, 0, SEEK_END);
  std::size_t written = 0;
  int reason = 0;
  while (written < text.size() && reason == 0) {
    const ssize_t n = ::write(number, text.data() + written, text.size() - written);
    if (n < 0 && errno != EINTR) reason = errno;
    if (n > 0) written += static_cast<std::size_t>(n);
  }
  if (reason == 0 && ::fsync(number) != 0 && errno != EINVAL) reason = errno;
  // Where the file cannot be shortened either, the next run repairs it.
  const bool undone = reason == 0 || ::ftruncate(number, before) == 0;
  ::close(number);
  require(reason == 0, "cannot write " + file.string() + ": " +
                           std::generic_category().message(reason) +
                           (undone ? "; the rows before it are safe" : "; its last row is cut") +
                           ", run the sweep again when there is room");
}

void put(std::vector<Row>& rows, Row row) {
  const auto at =
      std::find_if(rows.begin(), rows.end(), [&](const Row& r) { return r.id == row.id; });
  if (at == rows.end())
    rows.push_back(std::move(row));
  else
    *at = std::move(row);
}

}  // namespace

std::map<std::string, double> numbers_of(const Json& json) {
  std::map<std::string, double> all;
  collect(json, "", all);
  return all;
}

Json to_json(const Row& row) {
  Json axes = Json::object();
  for (const auto& [axis, value] : row.axes) axes[axis] = value_of(value);
  Json out = {{"id", row.id}, {"status", row.done ? "done" : "failed"}, {"axes", axes}};
  if (row.done) {
    out["metrics"] = Json::object();
    for (const auto& [name, value] : row.metrics)
      if (std::isfinite(value)) out["metrics"][name] = value;
  } else {
    out["error"] = row.error;
  }
  out["receipt"] = row.receipt;
  return out;
}

Rows read_rows(const fs::path& directory) {
  const fs::path file = directory / "results.jsonl";
  Rows found;
  if (!fs::exists(file)) return found;
  const std::string text = read_text(file);
  Index number = 0;
  for (std::size_t begin = 0; begin < text.size();) {
    const auto newline = text.find('\n', begin);
    const bool cut = newline == std::string::npos;
    const std::string line = text.substr(begin, cut ? std::string::npos : newline - begin);
    begin = cut ? text.size() : newline + 1;
    ++number;
    if (cut) {
      found.repaired = cut_sentence(file);
      break;
    }
    const auto row = row_of(line);
    require(row.has_value(), file.string() + ": line " + std::to_string(number) +
                                 " is no row of results; take it out, and its point runs again");
    put(found.rows, *row);
  }
  return found;
}

std::string repair(const fs::path& directory) {
  const fs::path file = directory / "results.jsonl";
  if (!fs::exists(file)) return "";
  const Lock lock(directory / "results.lock");
  const std::string text = read_text(file);
  if (text.empty() || text.back() == '\n') return "";
  const auto last = text.rfind('\n');
  write_text(file, text.substr(0, last == std::string::npos ? 0 : last + 1));
  return cut_sentence(file);
}

void append(const fs::path& directory, const Row& row) {
  const Lock lock(directory / "results.lock");
  const std::string line = to_json(row).dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
  write_at_end(directory / "results.jsonl", line);
}

void settle(const fs::path& directory, const Plan& plan) {
  const Lock lock(directory / "results.lock");
  const std::vector<Row> rows = read_rows(directory).rows;
  std::vector<Row> ordered;
  for (const Point& point : plan.points)
    for (const Row& row : rows)
      if (row.id == point.id) ordered.push_back(row);
  std::string text;
  for (const Row& row : ordered)
    text += to_json(row).dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
  write_text(directory / "results.jsonl", text);
  write_text(directory / "results.csv", csv_of(plan, ordered));
  write_text(directory / "results.vl.json", json_text(vega_of(plan)));
}

}  // namespace dsa::sweep
