#include "core/json.hpp"

#include <set>
#include <vector>

#include "core/check.hpp"
#include "core/file.hpp"

namespace dsa {
namespace {

constexpr std::size_t max_depth = 64;

/// nlohmann's sentence without its error number and without the text it last read, which may be
/// long or not UTF-8.
std::string reason_of(const Json::exception& problem) {
  std::string text = problem.what();
  if (const auto bracket = text.find("] "); bracket != std::string::npos)
    text.erase(0, bracket + 2);
  const auto last_read = text.find("; last read");
  const auto expected = text.rfind("; expected");
  if (last_read != std::string::npos) {
    const bool has_expected = expected != std::string::npos && expected > last_read;
    const std::string tail = has_expected ? text.substr(expected) : "";
    text = text.substr(0, last_read) + tail;
  }
  constexpr std::size_t longest = 300;
  if (text.size() > longest) text = text.substr(0, longest) + "...";
  for (char& c : text)
    if (c < 0x20 || c > 0x7E) c = '?';
  return text;
}

/// Python writes the numbers NaN, Infinity and -Infinity, which JSON does not have.
bool is_python_number(std::string_view text, std::size_t byte) {
  if (byte == 0 || byte > text.size()) return false;
  const std::string_view rest = text.substr(byte - 1);
  return rest.starts_with("NaN") || rest.starts_with("Infinity");
}

/// Keeps the keys of every object that is open, to find one given twice.
class Strict {
 public:
  explicit Strict(const std::string& what) : what_(what) {}

  bool operator()(Json::parse_event_t event, const Json& parsed) {
    switch (event) {
      case Json::parse_event_t::object_start:
      case Json::parse_event_t::array_start:
        open_.emplace_back();
        require(open_.size() <= max_depth,
                what_ + " is nested deeper than " + std::to_string(max_depth) + " levels");
        break;
      case Json::parse_event_t::object_end:
      case Json::parse_event_t::array_end:
        open_.pop_back();
        break;
      case Json::parse_event_t::key: {
        const auto& key = parsed.get_ref<const std::string&>();
        if (!open_.back().insert(key).second)
          throw Error(what_ + " gives the key " + in_quotes(key) + " twice");
        break;
      }
      case Json::parse_event_t::value:
        break;
    }
    return true;
  }

 private:
  const std::string& what_;
  std::vector<std::set<std::string>> open_;
};

}  // namespace

std::string in_quotes(std::string_view text) {
  constexpr std::size_t longest = 200;
  const auto replace = Json::error_handler_t::replace;
  if (text.size() <= longest) return Json(text).dump(-1, ' ', true, replace);
  return Json(text.substr(0, longest)).dump(-1, ' ', true, replace) + "...";
}

Json parse_json(std::string_view text, const std::string& what) {
  // The parser takes a zero byte for the end of the text and would ignore the rest.
  const auto zero = text.find('\0');
  require(zero == std::string_view::npos,
          what + " is not valid JSON: byte " + std::to_string(zero + 1) + " is zero");
  Strict strict(what);
  try {
    return Json::parse(text.begin(), text.end(),
                       [&strict](int, Json::parse_event_t event, const Json& parsed) {
                         return strict(event, parsed);
                       });
  } catch (const Json::parse_error& problem) {
    require(!is_python_number(text, problem.byte),
            what + " holds NaN or Infinity (byte " + std::to_string(problem.byte) +
                "), which JSON does not have; write finite numbers, or use safetensors");
    throw Error(what + " is not valid JSON: " + reason_of(problem));
  } catch (const Json::exception& problem) {
    throw Error(what + " is not valid JSON: " + reason_of(problem));
  }
}

Json read_json(const std::filesystem::path& file) {
  return parse_json(read_text(file), file.string());
}

}  // namespace dsa
