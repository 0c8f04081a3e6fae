#include "verify/report/text.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/json.hpp"

namespace dsa::verify {
namespace {

std::string with_place(double value, const Place& at) {
  const std::string where = place(at);
  return where.empty() ? number(value) : number(value) + " at " + where;
}

std::string advice_on_failure(const Verdict& v) {
  if (v.golden_judged && v.golden_judged->outcome == Outcome::fail)
    return "Make a new golden first: this one is not what the definition says, so it cannot tell "
           "whether a candidate is.";
  if (v.judged.first_departure)
    return "Start at " + clean(*v.judged.first_departure) +
           ": every tensor computed before it is within its limit.";
  if (v.judged.tensors.empty())
    return "Give a trace of the same run as well: with logits alone the module that departs first "
           "cannot be named.";
  return "Every tensor of the trace is within its limit: look at what happens after the last one.";
}

std::string advice_without_verdict(const Verdict& v) {
  if (v.topk > 0 && v.longest_visible <= v.topk)
    return fmt::format(
        "Use a prompt that lets some query see more than {} keys: up to there the indexer selects "
        "every key, and a wrong one cannot be told from a right one.",
        count(v.topk));
  const auto& logits = v.judged.logits;
  if (logits && 2 * logits->undecided() > static_cast<Index>(logits->rows.size()))
    return "Give a trace, a golden of higher precision, or a model with smaller weights: most rows "
           "hang on decisions that lie within the rounding noise.";
  return "Nothing was shown to be wrong, and too little to be right: see the notes.";
}

}  // namespace

std::string clean(std::string_view text) {
  const auto replace = Json::error_handler_t::replace;
  const std::string valid =
      Json::parse(Json(text).dump(-1, ' ', false, replace)).get<std::string>();
  std::string shown;
  for (std::size_t i = 0; i < valid.size(); ++i) {
    const auto byte = [&](std::size_t k) {
      return k < valid.size() ? static_cast<unsigned char>(valid[k]) : 0u;
    };
    if (byte(i) < 0x20 || byte(i) == 0x7F) {
      shown += valid[i] == '\n' || valid[i] == '\t' ? ' ' : '?';
    } else if (byte(i) == 0xC2 && byte(i + 1) < 0xA0) {  // U+0080 to U+009F
      shown += '?';
      i += 1;
    } else if (byte(i) == 0xEF && byte(i + 1) == 0xBF && byte(i + 2) >= 0xBE) {  // U+FFFE, U+FFFF
      shown += '?';
      i += 2;
    } else {
      shown += valid[i];
    }
  }
  return shown;
}

std::string escaped(std::string_view raw) {
  std::string out;
  for (const char c : clean(raw)) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::string number(double x) {
  if (std::isnan(x)) return "NaN";
  if (std::isinf(x)) return x > 0 ? "inf" : "-inf";
  return fmt::format("{:.3g}", x);
}

std::string count(Index n) {
  std::string text = std::to_string(n);
  const std::size_t first = n < 0 ? 1 : 0;
  for (std::size_t i = text.size(); i > first + 3; i -= 3) text.insert(i - 3, 1, ',');
  return text;
}

std::string share(double x) {
  if (!(x < 1)) return x == 1 ? "100%" : number(x);
  return fmt::format("{:.2f}%", std::floor(x * 1e4) / 1e2);
}

double headroom_of(double value, double limit) {
  if (std::isnan(value) || std::isnan(limit)) return std::numeric_limits<double>::quiet_NaN();
  if (value == 0) return std::numeric_limits<double>::infinity();
  return std::isinf(value) ? 0 : limit / value;
}

std::string headroom(double value, double limit) {
  const double room = headroom_of(value, limit);
  if (std::isnan(room)) return "NaN";
  if (std::isinf(room)) return value == 0 ? "exact" : "inf";
  if (!(value <= limit)) return number(value / limit) + " x the limit";
  return (room >= 100 && room < 1e5 ? fmt::format("{:.0f}", room) : number(room)) + "x";
}

std::string place(const Place& at) {
  if (at.sequence < 0 && at.position < 0 && at.channel < 0) return "";
  const auto part = [](Index i) { return i < 0 ? std::string("-") : std::to_string(i); };
  std::string text = part(at.sequence) + ":" + part(at.position);
  if (at.channel >= 0) text += ":" + part(at.channel);
  return text;
}

std::string plural(Index n, const std::string& noun) {
  return count(n) + " " + noun + (n == 1 ? "" : "s");
}

std::string complaint(const TensorResult& t) {
  if (t.n == 0) return "nothing was compared";
  const std::string where = place(t.at).empty() ? "" : ", worst at " + place(t.at);
  if (t.kind != TensorResult::Kind::tensor)
    return fmt::format("{} of {} differ by more than the noise explains{}", count(t.over),
                       plural(t.n, "row"), where);
  if (t.wrong_kind > 0)
    return fmt::format("{} NaN or infinite on one side only, {} above the limit; got {}, want {}",
                       plural(t.wrong_kind, "element"), count(t.over), number(t.got),
                       number(t.want));
  return fmt::format("{} of {} above the limit; worst: got {:.9g}, want {:.9g}, allowed {}",
                     count(t.over), plural(t.n, "element"), t.got, t.want, number(t.allowed));
}

std::string advice(const Verdict& v) {
  switch (v.outcome) {
    case Outcome::pass:
      return "";
    case Outcome::fail:
      return advice_on_failure(v);
    case Outcome::inconclusive:
      return advice_without_verdict(v);
  }
  return "";
}

std::string summary_of(const std::vector<Verdict>& verdicts) {
  if (verdicts.empty()) return "nothing was judged";
  std::string text = plural(static_cast<Index>(verdicts.size()), "golden") + ":";
  for (const Outcome outcome : {Outcome::pass, Outcome::fail, Outcome::inconclusive}) {
    const auto n = std::count_if(verdicts.begin(), verdicts.end(),
                                 [&](const Verdict& v) { return v.outcome == outcome; });
    if (n > 0 || outcome == Outcome::pass)
      text += fmt::format("{} {} {}", text.back() == ':' ? "" : ",", n, name_of(outcome));
  }
  return text;
}

std::string other_side(const Verdict& v, const Judgement& j) {
  return v.candidate.empty() || &j != &v.judged ? "definition" : "candidate";
}

std::vector<std::pair<std::string, std::string>> metrics(const LogitsMetrics& m,
                                                         const std::string& other) {
  const bool any = m.rows > 0;  // statistics of nothing are not zero
  const auto shown = [any](const std::string& text) { return any ? text : std::string("-"); };
  const std::string token = m.kl_max_token < 0 ? "" : ", token " + std::to_string(m.kl_max_token);
  std::vector<std::pair<std::string, std::string>> list = {
      {"KL(golden || " + other + ") mean, nats", shown(number(m.kl_mean))},
      {"KL(golden || " + other + ") max, nats", shown(with_place(m.kl_max, m.kl_max_at) + token)},
      {"largest |difference|", shown(with_place(m.max_abs, m.max_abs_at))},
      {"largest relative difference", shown(with_place(m.max_rel, m.max_rel_at))},
      {"NMSE", shown(number(m.nmse))},
      {"top-1 agreement", shown(share(m.top1))},
      {"top-10 overlap", shown(share(m.top10_overlap))},
      {"top-10 Jaccard", shown(share(m.jaccard))},
      {"top-10 rank agreement", shown(share(m.rank_agreement))},
      {"NaN or infinity on one side", shown(count(m.wrong_kind))},
  };
  if (m.perplexity_want)
    list.emplace_back("perplexity, golden", shown(fmt::format("{:.6g}", *m.perplexity_want)));
  if (m.perplexity_got)
    list.emplace_back("perplexity, " + other, shown(fmt::format("{:.6g}", *m.perplexity_got)));
  return list;
}

std::string Sources::letter(const std::string& from) {
  if (from.empty()) return "";
  for (const auto& [letter, sentence] : all_)
    if (sentence == from) return letter;
  std::string letter;
  for (std::size_t i = all_.size() + 1; i > 0; i = (i - 1) / 26)
    letter.insert(letter.begin(), static_cast<char>('a' + (i - 1) % 26));
  all_.emplace_back(letter, from);
  return letter;
}

std::string subscripts(const std::vector<Index>& list) {
  std::string text;
  for (std::size_t i = 0; i < std::min<std::size_t>(list.size(), 3); ++i)
    text += (i ? ", " : "") + std::to_string(list[i]);
  return list.size() > 3 ? text + ", ... (" + std::to_string(list.size()) + ")" : text;
}

}  // namespace dsa::verify
