#include "optimized/train/pipeline/step_losses.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

namespace dsa::train {
namespace {

double total(const std::vector<double>& x) { return std::accumulate(x.begin(), x.end(), 0.0); }

}  // namespace

ranks::Numbers to_numbers(const Losses& x) {
  ranks::Numbers all = {x.lm,
                        x.lm_weight,
                        x.mtp,
                        x.mtp_weight,
                        x.balance,
                        static_cast<double>(x.kl_rows),
                        static_cast<double>(x.kl.size())};
  all.insert(all.end(), x.kl.begin(), x.kl.end());
  for (const std::vector<Index>& of_layer : x.load) {
    all.push_back(static_cast<double>(of_layer.size()));
    for (const Index tokens : of_layer) all.push_back(static_cast<double>(tokens));
  }
  return all;
}

Losses losses_of(const ranks::Numbers& numbers) {
  std::size_t at = 0;
  const auto number = [&] { return numbers.at(at++); };
  const auto integer = [&] { return static_cast<Index>(number()); };
  Losses x;
  for (double Losses::*field :
       {&Losses::lm, &Losses::lm_weight, &Losses::mtp, &Losses::mtp_weight, &Losses::balance})
    x.*field = number();
  x.kl_rows = integer();
  x.kl.resize(static_cast<std::size_t>(integer()));
  for (double& one : x.kl) one = number();
  while (at < numbers.size()) {
    std::vector<Index>& of_layer = x.load.emplace_back(static_cast<std::size_t>(integer()));
    for (Index& tokens : of_layer) tokens = integer();
  }
  return x;
}

void add(Losses& sum, const Losses& x) {
  sum.lm += x.lm;
  sum.lm_weight += x.lm_weight;
  sum.mtp += x.mtp;
  sum.mtp_weight += x.mtp_weight;
  sum.balance += x.balance;
  sum.kl_rows += x.kl_rows;
  sum.kl.resize(std::max(sum.kl.size(), x.kl.size()), 0);
  for (std::size_t l = 0; l < x.kl.size(); ++l) sum.kl[l] += x.kl[l];
  if (sum.load.empty()) {
    sum.load = x.load;
    return;
  }
  for (std::size_t l = 0; l < x.load.size(); ++l)
    for (std::size_t e = 0; e < x.load[l].size(); ++e) sum.load[l][e] += x.load[l][e];
}

const char* not_finite(const Losses& sums) {
  const std::pair<const char*, double> all[] = {{"language-model loss", sums.lm},
                                                {"loss of multi-token prediction", sums.mtp},
                                                {"balance loss", sums.balance},
                                                {"indexer's loss", total(sums.kl)}};
  for (const auto& [what, x] : all)
    if (!std::isfinite(x)) return what;
  return nullptr;
}

Json means_of(const Losses& sums, const StepSize& size) {
  Json json = Json::object();
  if (sums.lm_weight > 0) json["loss.lm"] = sums.lm / sums.lm_weight;
  if (sums.mtp_weight > 0) json["loss.mtp"] = sums.mtp / sums.mtp_weight;
  if (sums.kl_rows > 0 && !sums.kl.empty())
    json["loss.kl"] =
        total(sums.kl) / static_cast<double>(sums.kl_rows) / static_cast<double>(sums.kl.size());
  if (sums.balance != 0) json["loss.balance"] = sums.balance / static_cast<double>(size.documents);
  return json;
}

}  // namespace dsa::train
