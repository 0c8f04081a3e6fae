#include "optimized/cpu/ops/index_kl.hpp"

#include <cmath>
#include <optional>

#include "core/threads.hpp"
#include "optimized/cpu/kernels/kl_rows.hpp"
#include "optimized/cpu/ops/teacher_mass.hpp"

namespace dsa::cpu {
namespace {

using KeySet = KlSemantics::Keys;

RowGuard row_guard(const Guard& g) {
  return {static_cast<float>(g.added), static_cast<float>(g.least)};
}

/// The loss and its gradient, part of the rows by part.
class IndexKl {
 public:
  IndexKl(Cpu cpu, const KlOut& y, const KlIn& in, Pieces& shared)
      : cpu_(cpu),
        y_(y),
        in_(in),
        semantics_(in.semantics),
        dense_teacher_(semantics_.teacher_softmax == KeySet::visible &&
                       semantics_.teacher_keys == KeySet::visible),
        dense_student_(semantics_.student_keys == KeySet::visible),
        T_(in.index.k.shape[0]),
        first_(in.index.first()),
        H_(in.index.q.shape[1]),
        D_(in.index.q.shape[2]),
        N_(in.teacher.q.shape[1]),
        K_(dense_teacher_ ? 0 : in.chosen.shape[1]),
        c_(semantics_.student_scaled
               ? 1
               : static_cast<float>(1 / (in.index.dot_scale * in.index.weight_scale))),
        index_(cpu, in.index, shared) {
    if (dense_teacher_)
      visible_.emplace(cpu, in.teacher, in.index.begin, shared);
    else
      chosen_.emplace(cpu, in.teacher, shared);
    if (y.gradient.d_q.data) sums_.emplace(in.index.begin, first_, D_, shared);
  }

  void operator()(TrainMemory& memory) const;

 private:
  /// Of a thread.
  struct At {
    IndexBlocks::Scratch index;
    float *z_rows = nullptr, *u_rows = nullptr, *mass = nullptr;  // of a block
    float *z = nullptr, *u = nullptr;                             // of the keys of a row
    std::optional<MassOfChosen::Scratch> chosen;
    float* d_keys = nullptr;

    At(Pieces&, const IndexKl&);
  };
  /// The student's log of the sum, and what the loss came to.
  struct Row {
    float lse = 0, sum_r = 0;
  };

  void part(KeyRange rows, const At&) const;
  void visible_rows(Index t, Index count, const At&) const;
  void chosen_row(Index t, const At&) const;
  Row teach(Index t, float* u, const float* z, Index n, float lse) const;
  float lse_of(const float* z, Index n) const {
    const RowSum sum = sum_row_of[int(cpu_.tier)](z, n, c_);
    return sum.largest + std::log(sum.sum);
  }
  void differentiate_row(float* d, const float* r, const float* z, Index n, Index t,
                         Row row) const {
    differentiate_kl_of[int(cpu_.tier)](
        {d, r, z, n, c_, row.lse, row.sum_r, in_.weight(t - first_) * c_});
  }
  Index scatter_row(const RowBlock& z, Index i, const At&, Row&) const;

  Cpu cpu_;
  KlOut y_;
  KlIn in_;
  KlSemantics semantics_;
  bool dense_teacher_, dense_student_;
  Index T_, first_, H_, D_, N_, K_;
  float c_;
  IndexBlocks index_;
  std::optional<MassOfVisible> visible_;
  std::optional<MassOfChosen> chosen_;
  std::optional<KeySums> sums_;
};

IndexKl::At::At(Pieces& pieces, const IndexKl& kl) : index(pieces, kl.H_, kl.D_, kl.K_) {
  if (kl.dense_student_) z_rows = pieces.take<float>(RowBlock::floats(kl.T_));
  if (kl.dense_teacher_) {
    u_rows = pieces.take<float>(RowBlock::floats(kl.T_));
    mass = MassOfVisible::scratch(pieces);
    return;
  }
  z = pieces.take<float>(kl.K_ + block_lanes);
  u = pieces.take<float>(kl.K_ + block_lanes);
  chosen.emplace(pieces, *kl.chosen_, kl.K_);
}

/// The loss of row t, whose teacher has the n keys of u and z. u becomes r.
IndexKl::Row IndexKl::teach(Index t, float* u, const float* z, Index n, float lse) const {
  // The heads' softmax sums to one over its own keys, and u to N.
  double sum = static_cast<double>(N_);
  if (!dense_teacher_ && semantics_.teacher_softmax == KeySet::visible) {
    sum = 0;
    for (Index i = 0; i < n; ++i) sum += u[i];
  }
  const double divisor = std::max(sum + semantics_.l1.added, semantics_.l1.least);
  const KlSums sums =
      sum_kl_of[int(cpu_.tier)]({u, z, n, static_cast<float>(1 / divisor), c_, lse,
                                 row_guard(semantics_.log_p), row_guard(semantics_.log_q)});
  y_.loss(t - first_) = sums.loss;
  return {lse, sums.r};
}

/// Row t where the student has the chosen keys.
void IndexKl::chosen_row(Index t, const At& at) const {
  const Index q = t - first_, n = count_chosen(in_.chosen, q, t, in_.index.begin(t));
  const std::int32_t* const ids = in_.chosen.data + q * K_;
  const bool counts = n > 0 && in_.weight(q) != 0;
  if (counts) {
    index_.score_chosen(at.z, t, ids, n, at.index);
    (*chosen_)(at.u, q, ids, n, *at.chosen);
    const Row row = teach(t, at.u, at.z, n, lse_of(at.z, n));
    if (sums_) differentiate_row(at.z, at.u, at.z, n, t, row);
  } else {
    y_.loss(q) = 0;
  }
  if (sums_)
    index_.differentiate_chosen(y_.gradient, at.d_keys, at.z, t, ids, counts ? n : 0, at.index);
}

/// The teacher's chosen keys of row i, gathered from the rows of the student's scores. Returns how
/// many there are.
Index IndexKl::scatter_row(const RowBlock& z, Index i, const At& at, Row& row) const {
  const Index t = z.t + i, q = t - first_, n = count_chosen(in_.chosen, q, t, in_.index.begin(t));
  const std::int32_t* const ids = in_.chosen.data + q * K_;
  for (Index j = 0; j < n; ++j) at.z[j] = *z.at(i, ids[j]);
  (*chosen_)(at.u, q, ids, n, *at.chosen);
  row = teach(t, at.u, at.z, n, row.lse);
  return n;
}

/// Rows [t, t + count) where the student has every visible key.
void IndexKl::visible_rows(Index t, Index count, const At& at) const {
  RowBlock z(in_.index.begin, t, count), u = z;
  z.x = at.z_rows;
  u.x = at.u_rows;
  index_.score(z, at.index);
  if (dense_teacher_) (*visible_)(u, at.mass);
  for (Index i = 0; i < count; ++i) {
    const Index row_t = t + i, q = row_t - first_, first = in_.index.begin(row_t),
                n = row_t + 1 - first;
    float* const scores = z.at(i, first);
    if (in_.weight(q) == 0) {
      y_.loss(q) = 0;
      std::fill_n(scores, n, 0.0f);
      continue;
    }
    Row row{.lse = lse_of(scores, n)};
    if (dense_teacher_) {
      float* const mass = u.at(i, first);
      row = teach(row_t, mass, scores, n, row.lse);
      if (sums_) differentiate_row(scores, mass, scores, n, row_t, row);
      continue;
    }
    const Index chosen = scatter_row(z, i, at, row);
    if (!sums_) continue;
    differentiate_row(scores, nullptr, scores, n, row_t, row);
    for (Index j = 0; j < chosen; ++j) *z.at(i, in_.chosen(q, j)) += in_.weight(q) * c_ * at.u[j];
  }
  if (sums_) index_.differentiate(y_.gradient, at.d_keys, z, at.index);
}

void IndexKl::part(KeyRange rows, const At& at) const {
  if (dense_student_)
    for (Index t = rows.begin; t < rows.end; t += row_queries)
      visible_rows(t, std::min(row_queries, rows.end - t), at);
  else
    for (Index t = rows.begin; t < rows.end; ++t) chosen_row(t, at);
}

void IndexKl::operator()(TrainMemory& memory) const {
  index_.pack();
  if (visible_) visible_->pack();
  if (chosen_) chosen_->pack();
  Pieces sizes;
  At(sizes, *this);
  const Scratch scratch = memory.threads(sizes.bytes());
  // Without a gradient there are no sums, and parts of the same size.
  Pieces none;
  const KeySums parts = sums_ ? *sums_ : KeySums(in_.index.begin, first_, D_, none);
  parallel_for(parts.parts(), shared_loop_ns, [&](Index back, int thread) {
    const Index i = parts.parts() - 1 - back;
    Pieces pieces(scratch.of_thread(thread));
    At at(pieces, *this);
    if (sums_) at.d_keys = parts.clear(i);
    part(parts.rows(i), at);
  });
  if (sums_) parts.write(y_.gradient.d_k);
}

void expect_kl(const KlOut& y, const KlIn& in) {
  const Index Q = in.index.q.shape[0];
  check(in.semantics);
  expect_index(in.index);
  expect_teacher(in.teacher, Q, in.index.k.shape[0]);
  expect_shape("weight", in.weight, {Q});
  expect_shape("loss", y.loss, {Q});
  if (y.gradient.d_q.data) expect_index_gradient(y.gradient, in.index);
  const bool reads_chosen = in.semantics.teacher_softmax == KeySet::chosen ||
                            in.semantics.teacher_keys == KeySet::chosen ||
                            in.semantics.student_keys == KeySet::chosen;
  if (reads_chosen) expect_shape("chosen", in.chosen, {Q, in.chosen.shape[1]});
}

}  // namespace

void index_kl(Cpu cpu, KlOut y, const KlIn& in, TrainMemory& memory) {
  expect_kl(y, in);
  Pieces sizes;
  IndexKl(cpu, y, in, sizes);
  Pieces shared(memory.shared(sizes.bytes()));
  IndexKl(cpu, y, in, shared)(memory);
}

}  // namespace dsa::cpu
