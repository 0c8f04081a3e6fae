#include "run/mmlu/csv.hpp"

#include <algorithm>

#include "core/check.hpp"

namespace dsa::run::mmlu {
namespace {

class Reader {
 public:
  Reader(std::string_view text, const std::string& what) : text_(text), what_(what) {}

  bool at_end() const { return at_ == text_.size(); }

  CsvRow row() {
    CsvRow row{line_, {}};
    do row.fields.push_back(field());
    while (take(','));
    if (!at_end()) take_line_break();
    return row;
  }

 private:
  bool take(char c) {
    if (at_end() || text_[at_] != c) return false;
    if (c == '\n') ++line_;
    ++at_;
    return true;
  }

  bool at_line_break() const {
    return text_.substr(at_, 1) == "\n" || text_.substr(at_, 2) == "\r\n";
  }

  void take_line_break() {
    take('\r');
    take('\n');
  }

  std::string field() {
    if (take('"')) return quoted();
    const std::size_t begin = at_;
    while (!at_end() && text_[at_] != ',' && !at_line_break()) ++at_;
    return std::string(text_.substr(begin, at_ - begin));
  }

  /// Behind the opening quote.
  std::string quoted() {
    const int opened = line_;
    std::string value;
    for (;;) {
      require(!at_end(), what_ + ": the quote opened on line " + std::to_string(opened) +
                             " is never closed; add the closing quote");
      if (take('"')) {
        if (!take('"')) break;
        value += '"';
        continue;
      }
      value += text_[at_];
      take(text_[at_]);
    }
    require(at_end() || text_[at_] == ',' || at_line_break(),
            what_ + ": on line " + std::to_string(line_) +
                " text follows a closing quote, expected a comma or the end of the line");
    return value;
  }

  std::string_view text_;
  const std::string& what_;
  std::size_t at_ = 0;
  int line_ = 1;
};

}  // namespace

std::vector<CsvRow> parse_csv(std::string_view text, const std::string& what) {
  std::vector<CsvRow> rows;
  for (Reader reader(text, what); !reader.at_end();) {
    rows.push_back(reader.row());
    if (rows.back().fields == std::vector<std::string>{""}) rows.pop_back();
  }
  return rows;
}

}  // namespace dsa::run::mmlu
