// The verdict as text for a terminal: one line a check, the failures never summarised away.
#include <fmt/format.h>

#include <algorithm>

#include "core/trace_names.hpp"
#include "verify/report/report.hpp"
#include "verify/report/text.hpp"
#include "verify/report/values.hpp"

namespace dsa::verify {
namespace {

constexpr std::size_t numbers_width = 74;  // of a line, without the name
constexpr std::size_t longest_name = page_width - numbers_width;
constexpr Index passing_in_full = 12;  // more passing tensors than this are summarised by layer
constexpr std::size_t undecided_in_full = 8;

/// One line of the table, and what is said below it.
struct Line {
  std::string name;
  Index n = 0;
  std::string middle;  // value, limit, headroom, place; or a sentence as wide
  bool ok = false;
  std::string source;
  std::vector<std::string> below;
};

/// Columns are padded; the end of a line need not be.
std::string without_trailing_spaces(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '\n') out.erase(out.find_last_not_of(' ') + 1);
    out += c;
  }
  return out;
}

Outcome outcome_of(bool ok) { return ok ? Outcome::pass : Outcome::fail; }

/// Long names lose their middle: the layer is at the front, the module at the end.
std::string shortened(const std::string& name, std::size_t width) {
  if (name.size() <= width) return name;
  const std::size_t front = (width - 2) / 3;
  return name.substr(0, front) + ".." + name.substr(name.size() - (width - 2 - front));
}

std::string middle(double value, double limit, const Place& at) {
  return fmt::format("{:>9} {:>9} {:>20}  {:<11}", number(value), number(limit),
                     headroom(value, limit), place(at));
}

// --- lines of a judgement ---

Line tensor_line(const TensorResult& t, const Judgement& j, Sources& sources) {
  Line line{clean(t.name), t.n, "", t.ok(), sources.letter(clean(t.from)), {}};
  line.middle = t.kind == TensorResult::Kind::tensor
                    ? middle(t.worst, 1, t.at)
                    : fmt::format("{} agree, {} explained, {} over", count(t.agreeing),
                                  count(t.explained), count(t.over));
  const bool first = j.first_departure == t.name;
  // What follows a departure is off as well: its numbers say enough, unless they are none.
  const bool plain = t.kind == TensorResult::Kind::tensor && t.n > 0 && t.wrong_kind == 0;
  if (first)
    line.below = {"^ FIRST DEPARTURE: " + complaint(t)};
  else if (!t.ok() && !plain)
    line.below = {"^ " + complaint(t)};
  return line;
}

/// Neighbouring tensors that pass, in one line.
Line summary_line(const std::vector<const TensorResult*>& run) {
  const auto worst = *std::max_element(run.begin(), run.end(),
                                       [](auto* a, auto* b) { return a->worst < b->worst; });
  Index low = layer_of(run.front()->name), high = low, n = 0, explained = 0;
  for (const TensorResult* t : run) {
    low = std::min(low, layer_of(t->name));
    high = std::max(high, layer_of(t->name));
    n += t->n;
    explained += t->explained;
  }
  const std::string layers = low < 0       ? "outside layers"
                             : low == high ? fmt::format("layer {}", low)
                                           : fmt::format("layers {}-{}", low, high);
  Line line{
      fmt::format("{}: {} ok, worst:", layers, plural(static_cast<Index>(run.size()), "tensor")),
      n,
      middle(worst->worst, 1, worst->at),
      true,
      "",
      {}};
  line.below = {"worst is " + clean(worst->name)};
  if (explained > 0) line.below[0] += "; " + plural(explained, "decision") + " explained by noise";
  return line;
}

std::vector<Line> tensor_lines(const Judgement& j, Sources& sources) {
  const auto must_show = [&](const TensorResult& t) {
    return !t.ok() || j.first_departure == t.name;
  };
  const auto passing = std::count_if(j.tensors.begin(), j.tensors.end(),
                                     [&](const TensorResult& t) { return !must_show(t); });
  std::vector<Line> lines;
  std::vector<const TensorResult*> run;
  const auto flush = [&] {
    if (run.size() == 1)
      lines.push_back(tensor_line(*run[0], j, sources));
    else if (!run.empty())
      lines.push_back(summary_line(run));
    run.clear();
  };
  for (const TensorResult& t : j.tensors) {
    if (must_show(t) || passing <= passing_in_full) {
      flush();
      lines.push_back(tensor_line(t, j, sources));
      continue;
    }
    sources.letter(clean(t.from));
    if (!run.empty() && (layer_of(run.back()->name) < 0) != (layer_of(t.name) < 0)) flush();
    run.push_back(&t);
  }
  flush();
  return lines;
}

Line check_line(const std::string& name, const Check& c, const std::string& source) {
  Line line{name, c.n, middle(c.got, c.allowed, c.at), c.ok(), source, {}};
  if (c.n == 0)
    line.below = {"^ nothing was compared"};
  else if (c.over > 0)
    line.below = {fmt::format("^ {} of {} above the limit", count(c.over), count(c.n))};
  return line;
}

std::vector<Line> logits_lines(const LogitsResult& logits, Sources& sources) {
  std::vector<Line> lines;
  if (logits.kl.n > 0 || logits.decided.rows > 0 || logits.rows.empty()) {
    lines.push_back(
        check_line("logits: KL of a row, nats", logits.kl, sources.letter(clean(logits.kl.from))));
    lines.push_back(check_line("logits: |difference| / allowed", logits.elements,
                               sources.letter(clean(logits.elements.from))));
  }
  for (const Check& c : logits.user) lines.push_back(check_line("logits: " + clean(c.from), c, ""));
  return lines;
}

// --- blocks ---

std::string line_text(const Line& line, std::size_t name_width, bool colour) {
  std::string text = fmt::format("{:<{}} {:>10} {:<53} ", shortened(line.name, name_width),
                                 name_width, count(line.n), line.middle);
  text += coloured(line.ok ? "ok" : "FAIL", outcome_of(line.ok), colour);
  if (!line.source.empty()) text += (line.ok ? "   [" : " [") + line.source + "]";
  text += "\n";
  for (const std::string& below : line.below) text += wrapped(below, 4);
  return text;
}

std::string checks_block(const Judgement& j, bool colour) {
  Sources sources;
  std::vector<Line> lines = tensor_lines(j, sources);
  if (j.logits)
    for (Line& line : logits_lines(*j.logits, sources)) lines.push_back(std::move(line));
  if (lines.empty()) return "";

  std::size_t name_width = 30;
  for (const Line& line : lines) name_width = std::max(name_width, line.name.size());
  name_width = std::min(name_width, longest_name);
  std::string text =
      fmt::format("{:<{}} {:>10} {:>9} {:>9} {:>20}  {:<11} {}\n", "name", name_width, "elements",
                  "value", "limit", "headroom", "worst at", "verdict");
  text += std::string(name_width + numbers_width, '-') + "\n";
  for (const Line& line : lines) text += line_text(line, name_width, colour);
  text +=
      "    value of a tensor: largest error / error allowed there; worst at "
      "sequence:position:channel\n";
  for (const auto& [letter, from] : sources.all())
    text += wrapped(from, 8, "[" + letter + "] limit: ");
  return text;
}

std::string metrics_block(const LogitsResult& logits, const std::string& other) {
  const auto decided = metrics(logits.decided, other), all = metrics(logits.all, other);
  const bool both = logits.decided.rows < logits.all.rows;
  std::string text = fmt::format("\n{:<38} {:<34}", "logits",
                                 both ? fmt::format("{} judged", plural(logits.decided.rows, "row"))
                                      : fmt::format("all {}", plural(logits.all.rows, "row")));
  if (both) text += fmt::format(" all {}", plural(logits.all.rows, "row"));
  for (std::size_t i = 0; i < std::max(all.size(), decided.size()); ++i) {
    const auto& label = i < all.size() ? all[i].first : decided[i].first;
    const auto& mine = both ? decided : all;
    text += fmt::format("\n  {:<36} {:<34}", label, i < mine.size() ? mine[i].second : "-");
    if (both) text += " " + (i < all.size() ? all[i].second : "-");
  }
  text += "\n";
  return text;
}

std::string flips_block(const LogitsResult& logits) {
  if (logits.flips.empty()) return "";
  std::string text = fmt::format(
      "\n{} explained by {} turned within the noise (a correct run turns {} in the mean, {} at the "
      "most)\n  {:<9} {:<46} {:<22} {:>11} {:>11}\n",
      plural(logits.explained(), "row"),
      plural(static_cast<Index>(logits.flips.size()), "decision"), number(logits.flips_expected),
      number(logits.flips_most), "row", "decision", "given up -> taken", "margin", "noise");
  std::size_t shown = 0;
  for (const FlipResult& flip : logits.flips) {
    if (shown++ == undecided_in_full) break;
    text +=
        fmt::format("  {:<9} {:<46} {:<22} {:>11} {:>11}\n",
                    place({flip.sequence, flip.position, -1}), shortened(clean(flip.decision), 46),
                    shortened(subscripts(flip.without) + " -> " + subscripts(flip.with), 22),
                    number(flip.margin), number(flip.noise));
  }
  const Index rest =
      static_cast<Index>(logits.flips.size()) - static_cast<Index>(undecided_in_full);
  if (rest > 0)
    text += fmt::format("  and {} more (all of them in the JSON report)\n", count(rest));
  return text;
}

std::string undecided_block(const LogitsResult& logits) {
  const Index n = logits.undecided();
  if (n == 0) return "";
  std::string text = fmt::format(
      "\n{} of {} undecided: a decision below may fall either way within the rounding "
      "noise\n",
      count(n), plural(static_cast<Index>(logits.rows.size()), "row"));
  text += fmt::format("  {:<9} {:<46} {:>9} {:>11} {:>11} {:>9}\n", "row", "decision", "position",
                      "margin", "noise", "KL");
  std::size_t shown = 0;
  for (const RowResult& row : logits.rows) {
    if (!row.undecided) continue;
    if (shown++ == undecided_in_full) break;
    text += fmt::format("  {:<9} {:<46} {:>9} {:>11} {:>11} {:>9}\n", place(row.at),
                        shortened(clean(row.decision), 46),
                        row.decided_at < 0 ? "-" : count(row.decided_at), number(row.margin),
                        number(row.noise), number(row.kl));
  }
  const Index rest = n - static_cast<Index>(undecided_in_full);
  if (rest > 0)
    text += fmt::format("  and {} more (all of them in the JSON report)\n", count(rest));
  return text;
}

std::string judgement_block(const Judgement& j, const std::string& other, bool colour) {
  std::string text = clean(j.title);
  if (!j.precision.empty()) text += ", computed as " + clean(j.precision);
  text = "\n" + text + "\n" + checks_block(j, colour);
  if (j.logits)
    text += metrics_block(*j.logits, other) + flips_block(*j.logits) + undecided_block(*j.logits);
  if (!j.notes.empty()) text += "\n";
  for (const std::string& note : j.notes) text += wrapped(clean(note), 8, "note: ");
  for (const std::string& line : j.limits) text += clean(line) + "\n";
  return text;
}

std::string receipt_line(const Receipt& r) {
  std::vector<std::string> parts = {"dsa " + clean(r.version)};
  const auto add = [&](const std::string& text) {
    if (!text.empty()) parts.push_back(clean(text));
  };
  add(r.commit.empty() ? "" : "commit " + r.commit);
  add(r.compiler);
  add(r.kernel);
  add(r.device);
  if (r.draws.runs > 0)
    add(fmt::format("{} perturbed runs of each kind from seed {}", r.draws.runs, r.draws.seed));
  if (r.seconds > 0) add(fmt::format("{:.1f} s", r.seconds));
  return wrapped(fmt::format("{}", fmt::join(parts, ", ")), 11, "receipt    ");
}

std::string heading(const Verdict& v) {
  std::string text = wrapped(clean(v.checkpoint), 11, "checkpoint ");
  text += wrapped(clean(v.golden), 11, "golden     ");
  if (!v.candidate.empty()) text += wrapped(clean(v.candidate), 11, "candidate  ");
  std::string model = fmt::format("{}, {}, {}, {}", clean(v.family), plural(v.layers, "layer"),
                                  plural(v.sequences, "sequence"), plural(v.positions, "position"));
  if (v.topk > 0)
    model += fmt::format(", top-{} of up to {} visible keys", v.topk, count(v.longest_visible));
  return text + wrapped(model, 11, "model      ") + receipt_line(v.receipt);
}

/// The golden as it lies under the directory, which every line would else begin with.
std::string name_under(const std::filesystem::path& directory, const Verdict& v) {
  const std::filesystem::path below = std::filesystem::path(v.golden).lexically_relative(directory);
  return clean(below.empty() || *below.begin() == ".." ? v.golden : below.string());
}

std::string summary_line(const Verdict& v, const std::string& name, std::size_t width,
                         bool colour) {
  const auto& tensors = v.judged.tensors;
  const auto good =
      std::count_if(tensors.begin(), tensors.end(), [](const TensorResult& t) { return t.ok(); });
  const std::string of = tensors.empty() ? "-" : fmt::format("{}/{}", good, tensors.size());
  const auto& logits = v.judged.logits;
  const bool kl = logits && logits->kl.n > 0;
  std::string text =
      fmt::format("{:<{}} {:>9} {:>10} {:>9} {:>9} {:>20}  ", shortened(name, width), width, of,
                  logits ? count(logits->undecided()) : "-", kl ? number(logits->kl.got) : "-",
                  kl ? number(logits->kl.allowed) : "-",
                  kl ? headroom(logits->kl.got, logits->kl.allowed) : "-");
  text += coloured(std::string(name_of(v.outcome)), v.outcome, colour) + "\n";
  return v.outcome == Outcome::pass ? text : text + wrapped(clean(v.why), 4);
}

}  // namespace

std::string table(const Verdict& v, bool colour) {
  std::string text = opening_line(v.outcome, v.why, colour) + heading(v);
  if (v.golden_judged)
    text += judgement_block(*v.golden_judged, other_side(v, *v.golden_judged), colour) +
            wrapped(clean(v.golden_judged->why), 0,
                    std::string(name_of(v.golden_judged->outcome)) + ": ");
  text += judgement_block(v.judged, other_side(v, v.judged), colour) + "\n";
  if (const std::string next = advice(v); !next.empty()) text += wrapped(next, 6, "next: ");
  return without_trailing_spaces(text + closing_line(v.outcome, v.why, colour));
}

std::string table(const Summary& s, bool colour) {
  const std::string total = summary_of(s.verdicts);
  std::string text = opening_line(s.outcome, total, colour);
  std::size_t width = 20;
  std::vector<std::string> names;
  for (const Verdict& v : s.verdicts) {
    names.push_back(name_under(s.directory, v));
    width = std::max(width, names.back().size());
  }
  width = std::min<std::size_t>(width, page_width - 76);
  text += wrapped(clean(s.directory.string()), 11, "goldens of ");
  if (!s.verdicts.empty()) {
    Receipt receipt = s.verdicts.front().receipt;
    receipt.seconds = 0;
    for (const Verdict& v : s.verdicts) receipt.seconds += v.receipt.seconds;
    text += receipt_line(receipt);
  }
  text += fmt::format("\n{:<{}} {:>9} {:>10} {:>9} {:>9} {:>20}  {}\n", "golden", width, "tensors",
                      "undecided", "KL", "limit", "headroom", "verdict");
  text += std::string(width + 76, '-') + "\n";
  for (std::size_t i = 0; i < names.size(); ++i)
    text += summary_line(s.verdicts[i], names[i], width, colour);
  return without_trailing_spaces(text + "\n" + closing_line(s.outcome, total, colour));
}

}  // namespace dsa::verify
